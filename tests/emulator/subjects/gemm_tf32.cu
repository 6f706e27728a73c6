// c = a b in float32, row-major, by three TF32 products (mma.sync) and a double buffer (cp.async).
// Requires k % 4 == 0 and n % 4 == 0. Shared memory: 2 * STAGE floats.
constexpr int BLOCK_M = 128, BLOCK_N = 64, BLOCK_K = 16;
constexpr int PITCH_A = BLOCK_K + 4, PITCH_B = BLOCK_N + 8;
constexpr int STAGE = BLOCK_M * PITCH_A + BLOCK_K * PITCH_B;
constexpr int THREADS = 128;

__device__ __forceinline__ void load_stage(float* stage, const float* a, const float* b, int m0,
                                           int n0, int k0, int m, int n, int k) {
  const int t = threadIdx.x;
#pragma unroll
  for (int i = 0; i < BLOCK_M * BLOCK_K / 4 / THREADS; i++) {
    const int q = t + i * THREADS, r = q / (BLOCK_K / 4), c = q % (BLOCK_K / 4) * 4;
    const bool inside = m0 + r < m && k0 + c < k;
    ptx::cp_async16(stage + r * PITCH_A + c, inside ? a + (size_t)(m0 + r) * k + k0 + c : a,
                    inside ? 16 : 0);
  }
#pragma unroll
  for (int i = 0; i < BLOCK_K * BLOCK_N / 4 / THREADS; i++) {
    const int q = t + i * THREADS, r = q / (BLOCK_N / 4), c = q % (BLOCK_N / 4) * 4;
    const bool inside = k0 + r < k && n0 + c < n;
    ptx::cp_async16(stage + BLOCK_M * PITCH_A + r * PITCH_B + c,
                    inside ? b + (size_t)(k0 + r) * n + n0 + c : b, inside ? 16 : 0);
  }
}

__device__ __forceinline__ void split(float x, unsigned& high, unsigned& low) {
  high = ptx::to_tf32(x);
  low = ptx::to_tf32(x - __uint_as_float(high));
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemm_tf32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m,
          int n, int k) {
  extern __shared__ __align__(16) float stages[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, member = lane % 4;
  const int m0 = blockIdx.y * BLOCK_M, n0 = blockIdx.x * BLOCK_N;
  const int warp_m = warp / 2 * 64, warp_n = warp % 2 * 32;
  float sum[4][4][4] = {};
  const int steps = (k + BLOCK_K - 1) / BLOCK_K;
  load_stage(stages, a, b, m0, n0, 0, m, n, k);
  ptx::cp_async_commit();
  for (int i = 0; i < steps; i++) {
    if (i + 1 < steps) {
      load_stage(stages + (i + 1) % 2 * STAGE, a, b, m0, n0, (i + 1) * BLOCK_K, m, n, k);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    const float *tile_a = stages + i % 2 * STAGE, *tile_b = tile_a + BLOCK_M * PITCH_A;
#pragma unroll
    for (int kk = 0; kk < BLOCK_K; kk += 8) {
      unsigned b_high[4][2], b_low[4][2];
#pragma unroll
      for (int q = 0; q < 4; q++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          split(tile_b[(kk + member + h * 4) * PITCH_B + warp_n + q * 8 + group], b_high[q][h],
                b_low[q][h]);
        }
#pragma unroll
      for (int p = 0; p < 4; p++) {
        unsigned a_all[4], a_high[4], a_low[4];
        const int row = warp_m + p * 16 + lane % 16;
        ptx::ldmatrix_x4(a_all, tile_a + row * PITCH_A + kk + lane / 16 * 4);
#pragma unroll
        for (int r = 0; r < 4; r++) split(__uint_as_float(a_all[r]), a_high[r], a_low[r]);
#pragma unroll
        for (int q = 0; q < 4; q++) {
          ptx::mma_m16n8k8_tf32(sum[p][q], a_low, b_high[q]);
          ptx::mma_m16n8k8_tf32(sum[p][q], a_high, b_low[q]);
          ptx::mma_m16n8k8_tf32(sum[p][q], a_high, b_high[q]);
        }
      }
    }
    __syncthreads();
  }
  for (int p = 0; p < 4; p++)
    for (int q = 0; q < 4; q++)
      for (int h = 0; h < 2; h++) {
        const int row = m0 + warp_m + p * 16 + group + h * 8;
        const int column = n0 + warp_n + q * 8 + member * 2;
        if (row < m && column < n) {
          *reinterpret_cast<float2*>(c + (size_t)row * n + column) =
              make_float2(sum[p][q][h * 2], sum[p][q][h * 2 + 1]);
        }
      }
}
