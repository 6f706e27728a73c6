// c = a b, one warp for each 16 x 16 tile of c: 16-bit operands by ldmatrix and m16n8k16.
// Extents are multiples of 16. ELEMENT_F16 or ELEMENT_BF16.
#if defined(ELEMENT_F16)
typedef __half Element;
#define MULTIPLY ptx::mma_m16n8k16_f16
#else
typedef __nv_bfloat16 Element;
#define MULTIPLY ptx::mma_m16n8k16_bf16
#endif

extern "C" __global__ void __launch_bounds__(32)
gemm_16_bit(const Element* __restrict__ a, const Element* __restrict__ b, float* __restrict__ c,
            int m, int n, int k) {
  __shared__ __align__(16) Element tile_a[16][24], tile_b[16][24];
  const int lane = threadIdx.x, m0 = blockIdx.y * 16, n0 = blockIdx.x * 16;
  const int row = lane / 2, column = lane % 2 * 8;
  float sum[2][4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    *reinterpret_cast<uint4*>(&tile_a[row][column]) =
        *reinterpret_cast<const uint4*>(a + (size_t)(m0 + row) * k + k0 + column);
    *reinterpret_cast<uint4*>(&tile_b[row][column]) =
        *reinterpret_cast<const uint4*>(b + (size_t)(k0 + row) * n + n0 + column);
    __syncwarp();
    unsigned fragment_a[4], fragment_b[4];
    ptx::ldmatrix_x4(fragment_a, &tile_a[lane % 16][lane / 16 * 8]);
    ptx::ldmatrix_x4_trans(fragment_b, &tile_b[lane % 16][lane / 16 * 8]);
    const unsigned left[2] = {fragment_b[0], fragment_b[1]};
    const unsigned right[2] = {fragment_b[2], fragment_b[3]};
    MULTIPLY(sum[0], fragment_a, left);
    MULTIPLY(sum[1], fragment_a, right);
    __syncwarp();
  }
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < 4; i++) {
      const int r = m0 + lane / 4 + i / 2 * 8, q = n0 + half * 8 + lane % 4 * 2 + i % 2;
      c[(size_t)r * n + q] = sum[half][i];
    }
}
