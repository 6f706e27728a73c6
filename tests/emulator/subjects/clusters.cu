// Blocks of a cluster that need the same tiles: each brings a part of a tile to all of them.
// Shared memory: STAGES * TILE * 4 bytes.
struct alignas(64) Map {
  unsigned long long opaque[16];
};
constexpr int COLUMNS = 32, ROWS = 8;  // of a part
constexpr int PART = ROWS * COLUMNS, TILE = CLUSTER * PART, STAGES = 2;
constexpr int CONSUMERS = 2;  // warps
constexpr unsigned short ALL = (1 << CLUSTER) - 1;

// y[b][t] = (b + 1) times the sum of the items t, t + 64, ... of all tiles; those of the second part
// count twice, those of the third three times, and so on
extern "C" __global__ void __launch_bounds__(96) __cluster_dims__(CLUSTER)
sum_tiles(const __grid_constant__ Map map, float* y, int tiles) {
  extern __shared__ alignas(1024) float stages[];
  __shared__ unsigned long long full[STAGES], empty[STAGES];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rank = ptx::cluster_rank();
  if (warp == 0 && ptx::elect_one()) {
    for (int s = 0; s < STAGES; s++) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], CLUSTER * CONSUMERS);
    }
    ptx::fence_mbar_init();
  }
  ptx::cluster_sync_relaxed();
  if (warp == 0 && ptx::elect_one()) {
    for (int i = 0; i < tiles; i++) {
      const int s = i % STAGES, phase = i / STAGES & 1;
      ptx::mbar_wait(&empty[s], phase ^ 1);
      ptx::mbar_expect_tx(&full[s], TILE * 4);
      ptx::tma_load_3d_multicast(stages + s * TILE + rank * PART, &map, 0, rank * ROWS, i,
                                 &full[s], ALL);
    }
    for (int i = tiles; i < tiles + STAGES; i++)  // until nobody arrives or multicasts here
      ptx::mbar_wait(&empty[i % STAGES], (i / STAGES & 1) ^ 1);
  } else if (warp > 0) {
    const int t = threadIdx.x - 32;
    float sum = 0;
    for (int i = 0; i < tiles; i++) {
      const int s = i % STAGES, phase = i / STAGES & 1;
      ptx::mbar_wait(&full[s], phase);
      for (int at = t; at < TILE; at += 64) sum += (at / PART + 1) * stages[s * TILE + at];
      __syncwarp();
      if (lane < CLUSTER) ptx::mbar_arrive_cluster(&empty[s], lane);
    }
    y[blockIdx.x * 64 + t] = (blockIdx.x + 1) * sum;
  }
}
