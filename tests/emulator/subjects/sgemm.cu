// c = a b in float32, row-major: 64 x 64 tiles, 256 threads with 4 x 4 results each.
constexpr int BLOCK_M = 64, BLOCK_N = 64, BLOCK_K = 16;

__device__ __forceinline__ float4 load4(const float* matrix, int row, int column, int rows,
                                        int columns, bool aligned) {
  float4 value = make_float4(0.f, 0.f, 0.f, 0.f);
  if (row >= rows) return value;
  const float* p = matrix + (size_t)row * columns + column;
  if (aligned && column + 3 < columns) return *reinterpret_cast<const float4*>(p);
  if (column < columns) value.x = p[0];
  if (column + 1 < columns) value.y = p[1];
  if (column + 2 < columns) value.z = p[2];
  if (column + 3 < columns) value.w = p[3];
  return value;
}

extern "C" __global__ void __launch_bounds__(256)
sgemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m,
      int n, int k) {
  __shared__ __align__(16) float tile_a[BLOCK_K][BLOCK_M + 4];
  __shared__ __align__(16) float tile_b[BLOCK_K][BLOCK_N];
  const int t = threadIdx.x, ty = t / 16, tx = t % 16;
  const int m0 = blockIdx.y * BLOCK_M, n0 = blockIdx.x * BLOCK_N;
  const bool aligned_a = k % 4 == 0, aligned_b = n % 4 == 0;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < k; k0 += BLOCK_K) {
    const float4 v = load4(a, m0 + t / 4, k0 + t % 4 * 4, m, k, aligned_a);
    tile_a[t % 4 * 4 + 0][t / 4] = v.x;
    tile_a[t % 4 * 4 + 1][t / 4] = v.y;
    tile_a[t % 4 * 4 + 2][t / 4] = v.z;
    tile_a[t % 4 * 4 + 3][t / 4] = v.w;
    *reinterpret_cast<float4*>(&tile_b[t / 16][t % 16 * 4]) =
        load4(b, k0 + t / 16, n0 + t % 16 * 4, k, n, aligned_b);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BLOCK_K; i++) {
      const float4 x = *reinterpret_cast<const float4*>(&tile_a[i][ty * 4]);
      const float4 y = *reinterpret_cast<const float4*>(&tile_b[i][tx * 4]);
      const float column[4] = {x.x, x.y, x.z, x.w}, row[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int p = 0; p < 4; p++)
#pragma unroll
        for (int q = 0; q < 4; q++) sum[p][q] = fmaf(column[p], row[q], sum[p][q]);
    }
    __syncthreads();
  }
  for (int p = 0; p < 4; p++)
    for (int q = 0; q < 4; q++) {
      const int row = m0 + ty * 4 + p, column = n0 + tx * 4 + q;
      if (row < m && column < n) c[(size_t)row * n + column] = sum[p][q];
    }
}
