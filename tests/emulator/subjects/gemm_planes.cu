// c = a bᵀ of float32 numbers that come as three planes of bfloat16, each the rest of those before.
// Persistent blocks: one warpgroup loads boxes of all planes (3-D TMA), two multiply (wgmma).
// a: (3, m, k), b: (3, n, k). Shared memory: STAGES * STAGE bytes of tiles, then the mbarriers.
#ifndef BLOCK_N
#define BLOCK_N 24
#endif
struct alignas(64) Map {
  unsigned long long opaque[16];
};
constexpr int PLANES = 3, BLOCK_M = 128, BLOCK_K = 32, STAGES = 2;
constexpr int ROW = BLOCK_K * 2;  // bytes
constexpr int PLANE_A = BLOCK_M * ROW, PLANE_B = BLOCK_N * ROW;
constexpr int STAGE = PLANES * (PLANE_A + PLANE_B);
constexpr unsigned long long SWIZZLE_64 = 2ull << 62;

__device__ __forceinline__ unsigned long long describe(const void* tile) {
  return (unsigned long long)((ptx::smem_u32(tile) & 0x3ffff) >> 4) | 1ull << 16 |
         (unsigned long long)(8 * ROW >> 4) << 32 | SWIZZLE_64;
}

extern "C" __global__ void __launch_bounds__(384, 1)
gemm_planes(const __grid_constant__ Map map_a, const __grid_constant__ Map map_b,
            float* __restrict__ c, int m, int n, int k) {
  extern __shared__ __align__(1024) unsigned char tiles[];
  unsigned long long* full = reinterpret_cast<unsigned long long*>(tiles + STAGES * STAGE);
  unsigned long long* empty = full + STAGES;
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    ptx::tma_prefetch(&map_a);
    ptx::tma_prefetch(&map_b);
    for (int s = 0; s < STAGES; s++) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], 8);
    }
    ptx::fence_mbar_init();
  }
  __syncthreads();
  const int tiles_n = (n + BLOCK_N - 1) / BLOCK_N;
  const int count = (m + BLOCK_M - 1) / BLOCK_M * tiles_n, steps = (k + BLOCK_K - 1) / BLOCK_K;
  if (group == 0) {  // producer
    ptx::setmaxnreg_dec<40>();
    if (threadIdx.x != 0) return;
    int turn = 0;
    for (int tile = blockIdx.x; tile < count; tile += gridDim.x)
      for (int i = 0; i < steps; i++, turn++) {
        const int s = turn % STAGES, phase = turn / STAGES & 1;
        unsigned char* a = tiles + s * STAGE;
        ptx::mbar_wait(&empty[s], phase ^ 1);
        ptx::mbar_expect_tx(&full[s], STAGE);
        ptx::tma_load_3d(a, &map_a, i * BLOCK_K, tile / tiles_n * BLOCK_M, 0, &full[s]);
        ptx::tma_load_3d(a + PLANES * PLANE_A, &map_b, i * BLOCK_K, tile % tiles_n * BLOCK_N, 0,
                         &full[s]);
      }
    return;
  }
  ptx::setmaxnreg_inc<232>();
  int turn = 0;
  for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
    float sum[BLOCK_N / 2];
    for (int i = 0; i < steps; i++, turn++) {
      const int s = turn % STAGES, phase = turn / STAGES & 1;
      const unsigned char* a = tiles + s * STAGE + (group - 1) * 64 * ROW;
      const unsigned char* b = tiles + s * STAGE + PLANES * PLANE_A;
      ptx::mbar_wait(&full[s], phase);
      ptx::wgmma_fence();
#pragma unroll
      for (int p = 0; p < PLANES; p++)  // the least products first
        for (int q = 0; q <= p; q++)
          for (int kk = 0; kk < BLOCK_K / 16; kk++) {
            ptx::wgmma_bf16<BLOCK_N>(sum, describe(a + (PLANES - 1 - p) * PLANE_A) + kk * 2,
                                     describe(b + q * PLANE_B) + kk * 2, i | p | kk);
          }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      if (lane == 0) ptx::mbar_arrive(&empty[s]);
    }
    const int row0 = tile / tiles_n * BLOCK_M + (group - 1) * 64 + warp * 16 + lane / 4;
    const int column0 = tile % tiles_n * BLOCK_N + lane % 4 * 2;
    for (int j = 0; j < BLOCK_N / 2; j++) {
      const int row = row0 + (j & 2 ? 8 : 0), column = column0 + j / 4 * 8 + (j & 1);
      if (row < m && column < n) c[(size_t)row * n + column] = sum[j];
    }
  }
}
