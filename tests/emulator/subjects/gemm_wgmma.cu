// c = a bᵀ in TF32, persistent blocks of one warpgroup that loads (TMA) and one that multiplies
// (wgmma). a: (m, k), b: (n, k). Shared memory: STAGES * 2 * TILE bytes, then the mbarriers.
struct alignas(64) Map {
  unsigned long long opaque[16];
};
constexpr int BLOCK_M = 64, BLOCK_N = 64, BLOCK_K = 32, STAGES = 4;
constexpr int TILE = 64 * 128;  // bytes of one operand
constexpr unsigned long long SWIZZLE_128 = 1ull << 62;

__device__ __forceinline__ unsigned long long describe(const void* tile) {
  return (unsigned long long)((ptx::smem_u32(tile) & 0x3ffff) >> 4) | 1ull << 16 |
         (unsigned long long)(1024 >> 4) << 32 | SWIZZLE_128;
}

extern "C" __global__ void __launch_bounds__(256, 2)
gemm_wgmma(const __grid_constant__ Map map_a, const __grid_constant__ Map map_b,
           float* __restrict__ c, int m, int n, int k) {
  extern __shared__ __align__(1024) unsigned char tiles[];
  unsigned long long* full = reinterpret_cast<unsigned long long*>(tiles + STAGES * 2 * TILE);
  unsigned long long* empty = full + STAGES;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], 4);
    }
    ptx::fence_mbar_init();
  }
  __syncthreads();
  const int tiles_n = (n + BLOCK_N - 1) / BLOCK_N;
  const int count = (m + BLOCK_M - 1) / BLOCK_M * tiles_n, steps = (k + BLOCK_K - 1) / BLOCK_K;
  if (warp >= 4) {  // producer
    ptx::setmaxnreg_dec<40>();
    if (threadIdx.x != 128) return;
    int turn = 0;
    for (int tile = blockIdx.x; tile < count; tile += gridDim.x)
      for (int i = 0; i < steps; i++, turn++) {
        const int s = turn % STAGES, phase = turn / STAGES & 1;
        unsigned char* stage = tiles + s * 2 * TILE;
        ptx::mbar_wait(&empty[s], phase ^ 1);
        ptx::mbar_expect_tx(&full[s], 2 * TILE);
        ptx::tma_load_2d(stage, &map_a, i * BLOCK_K, tile / tiles_n * BLOCK_M, &full[s]);
        ptx::tma_load_2d(stage + TILE, &map_b, i * BLOCK_K, tile % tiles_n * BLOCK_N, &full[s]);
      }
    return;
  }
  ptx::setmaxnreg_inc<216>();
  int turn = 0;
  for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
    float sum[32];
    for (int i = 0; i < steps; i++, turn++) {
      const int s = turn % STAGES, phase = turn / STAGES & 1;
      ptx::mbar_wait(&full[s], phase);
      ptx::wgmma_fence();
      const unsigned long long a = describe(tiles + s * 2 * TILE);
      const unsigned long long b = describe(tiles + s * 2 * TILE + TILE);
#pragma unroll
      for (int kk = 0; kk < BLOCK_K / 8; kk++) {
        ptx::wgmma_m64n64k8_tf32(sum, a + kk * 2, b + kk * 2, i | kk);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      if (lane == 0) ptx::mbar_arrive(&empty[s]);
    }
    const int row0 = tile / tiles_n * BLOCK_M + warp * 16 + lane / 4;
    const int column0 = tile % tiles_n * BLOCK_N + lane % 4 * 2;
    for (int j = 0; j < 32; j++) {
      const int row = row0 + (j & 2 ? 8 : 0), column = column0 + j / 4 * 8 + (j & 1);
      if (row < m && column < n) c[(size_t)row * n + column] = sum[j];
    }
  }
}
