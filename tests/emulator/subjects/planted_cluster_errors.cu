// One mistake a kernel, as in planted_errors.cu, between the blocks of a cluster. The comment @name
// marks the line that the report must name.
struct alignas(64) Map {
  unsigned char opaque[128];
};

__shared__ unsigned long long ready;
__shared__ alignas(128) float box[4 * 8];

__device__ void init_for_all_blocks(int arrivals) {
  if (threadIdx.x == 0) ptx::mbar_init(&ready, arrivals);
  ptx::fence_mbar_init();
  ptx::cluster_sync();
}

// ---- blocks that have exited

extern "C" __global__ void __cluster_dims__(2) exits_before_an_arrival() {
  init_for_all_blocks(1);
  const unsigned other = 1 - ptx::cluster_rank();
  if (threadIdx.x == 0) ptx::mbar_arrive_cluster(&ready, other);  // @exits_before_an_arrival
}

// Its own wait keeps the second block until then, but nothing keeps the first.
extern "C" __global__ void __cluster_dims__(2) one_exits_before_an_arrival() {
  init_for_all_blocks(1);
  if (threadIdx.x > 0) return;
  if (ptx::cluster_rank() == 1) ptx::mbar_wait(&ready, 0);
  const unsigned other = 1 - ptx::cluster_rank();
  ptx::mbar_arrive_cluster(&ready, other);  // @one_exits_before_an_arrival
}

extern "C" __global__ void __cluster_dims__(2)
exits_before_a_multicast(const __grid_constant__ Map map) {
  init_for_all_blocks(1);
  if (ptx::cluster_rank() > 0) return;
  if (threadIdx.x == 0) {
    ptx::mbar_expect_tx(&ready, sizeof box);
    ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 3);  // @exits_before_a_multicast
  }
  ptx::mbar_wait(&ready, 0);
}

extern "C" __global__ void __cluster_dims__(2)
exits_before_the_copy_lands(const __grid_constant__ Map map) {
  init_for_all_blocks(1);
  if (threadIdx.x == 0) {
    ptx::mbar_expect_tx(&ready, sizeof box);
    if (ptx::cluster_rank() == 0)
      ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 3);  // @exits_before_the_copy_lands
  }
  ptx::cluster_sync();
  if (ptx::cluster_rank() == 0) ptx::mbar_wait(&ready, 0);
}

// Of three arrivals two end the phase that the first block waits for.
extern "C" __global__ void __cluster_dims__(2) exits_before_the_next_phase() {
  init_for_all_blocks(2);
  if (threadIdx.x > 0) return;
  if (ptx::cluster_rank() == 0) ptx::mbar_wait(&ready, 0);
  for (int i = 0; i < 3 && ptx::cluster_rank() == 1; i++)
    ptx::mbar_arrive_cluster(&ready, 0);  // @exits_before_the_next_phase
}

// A ring of two stages: of the last two tiles only one is waited for.
extern "C" __global__ void __cluster_dims__(2) exits_before_the_last_stage_is_empty() {
  __shared__ unsigned long long full[2], empty[2];
  constexpr int TILES = 5;
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; s++) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], 2);
    }
    ptx::fence_mbar_init();
  }
  ptx::cluster_sync_relaxed();
  if (threadIdx.x == 0) {
    for (int i = 0; i < TILES + 1; i++) {
      ptx::mbar_wait(&empty[i % 2], (i / 2 & 1) ^ 1);
      if (i < TILES) ptx::mbar_arrive(&full[i % 2]);
    }
  } else if (threadIdx.x == 1) {
    for (int i = 0; i < TILES; i++) {
      ptx::mbar_wait(&full[i % 2], i / 2 & 1);
      for (int r = 0; r < 2; r++)
        ptx::mbar_arrive_cluster(&empty[i % 2], r);  // @exits_before_the_last_stage_is_empty
    }
  }
}

extern "C" __global__ void __cluster_dims__(2) exits_after_a_relaxed_barrier() {
  init_for_all_blocks(1);
  const unsigned other = 1 - ptx::cluster_rank();
  if (threadIdx.x == 0)
    ptx::mbar_arrive_cluster(&ready, other);  // @exits_after_a_relaxed_barrier
  __syncwarp();
  ptx::cluster_sync_relaxed();
}

// ---- blocks that there are not

extern "C" __global__ void __cluster_dims__(2) arrives_outside_the_cluster() {
  init_for_all_blocks(1);
  ptx::mbar_arrive_cluster(&ready, 2);  // @arrives_outside_the_cluster
}

extern "C" __global__ void __cluster_dims__(2)
multicast_outside_the_cluster(const __grid_constant__ Map map) {
  init_for_all_blocks(1);
  if (threadIdx.x == 0)
    ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 6);  // @multicast_outside_the_cluster
  ptx::cluster_sync();
}

extern "C" __global__ void __cluster_dims__(2)
multicast_to_nobody(const __grid_constant__ Map map) {
  init_for_all_blocks(1);
  ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 0);  // @multicast_to_nobody
}

extern "C" __global__ void arrives_without_a_cluster() {
  init_for_all_blocks(1);
  ptx::mbar_arrive_cluster(&ready, 1);  // @arrives_without_a_cluster
}

// ---- mbarriers that another block has initialised

extern "C" __global__ void __cluster_dims__(2) arrives_after_a_block_barrier() {
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 2);
  __syncthreads();
  for (unsigned r = 0; r < 2 && threadIdx.x == 0; r++)
    ptx::mbar_arrive_cluster(&ready, r);  // @arrives_after_a_block_barrier
  ptx::cluster_sync();
}

// The barrier of the cluster is without release, and nothing is fenced.
extern "C" __global__ void __cluster_dims__(2) arrives_without_a_fence() {
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 2);
  ptx::cluster_sync_relaxed();
  for (unsigned r = 0; r < 2 && threadIdx.x == 0; r++)
    ptx::mbar_arrive_cluster(&ready, r);  // @arrives_without_a_fence
  ptx::cluster_sync();
}

// The other block has initialised it before, but nothing says so.
extern "C" __global__ void __cluster_dims__(2) initialisation_not_ordered() {
  __shared__ unsigned long long late;
  ptx::cluster_sync();
  if (ptx::cluster_rank() == 1 && threadIdx.x == 0) ptx::mbar_init(&late, 1);
  __syncwarp();
  for (int i = 0; i < 9; i++) __nanosleep(100);
  if (ptx::cluster_rank() == 0 && threadIdx.x == 0)
    ptx::mbar_arrive_cluster(&late, 1);  // @initialisation_not_ordered
  ptx::cluster_sync();
}

extern "C" __global__ void __cluster_dims__(2)
multicast_to_a_late_block(const __grid_constant__ Map map) {
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 1);
  ptx::fence_mbar_init();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::mbar_expect_tx(&ready, 2 * sizeof box);
    const int rank = ptx::cluster_rank();
    ptx::tma_load_3d_multicast(box, &map, 0, 0, rank, &ready, 3);  // @multicast_to_a_late_block
  }
  ptx::cluster_sync();
}

extern "C" __global__ void __cluster_dims__(2)
multicast_without_a_fence(const __grid_constant__ Map map) {
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 1);
  if (ptx::cluster_rank() == 0) ptx::fence_mbar_init();
  ptx::cluster_sync();
  if (threadIdx.x == 0 && ptx::cluster_rank() == 0)
    ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 3);  // @multicast_without_a_fence
  ptx::cluster_sync();
}

// The bytes are counted in both blocks, but only one expects them.
extern "C" __global__ void __cluster_dims__(2)
bytes_that_one_block_expects(const __grid_constant__ Map map) {
  init_for_all_blocks(1);
  if (threadIdx.x == 0 && ptx::cluster_rank() == 0) {
    ptx::mbar_expect_tx(&ready, sizeof box);
    ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 3);
  }
  ptx::mbar_wait(&ready, 0);  // @bytes_that_one_block_expects
  ptx::cluster_sync();
}

// ---- the barrier of the cluster

extern "C" __global__ void __cluster_dims__(2) a_block_stays_away() {
  __shared__ unsigned long long never;
  if (threadIdx.x == 0) ptx::mbar_init(&never, 1);
  __syncthreads();
  if (ptx::cluster_rank() == 1)
    ptx::mbar_wait(&never, 0);  // @a_block_stays_away_waiter
  ptx::cluster_sync();  // @a_block_stays_away
}

extern "C" __global__ void __cluster_dims__(2) different_places_in_a_warp() {
  if (threadIdx.x % 2)
    ptx::cluster_sync();  // @different_places_in_a_warp
  else
    ptx::cluster_sync();  // @different_places_in_a_warp_other
}

// ---- registers

extern "C" __global__ void __launch_bounds__(128, 1) __cluster_dims__(2)
registers_of_another_block() {
  if (ptx::cluster_rank() == 0)
    ptx::setmaxnreg_dec<40>();
  else
    ptx::setmaxnreg_inc<256>();  // @registers_of_another_block
}

// ---- memory

extern "C" __global__ void __cluster_dims__(2) global_memory_without_a_barrier(int* y) {
  if (ptx::cluster_rank() == 0)
    y[threadIdx.x] = 1;  // @global_memory_without_a_barrier_writer
  else
    y[threadIdx.x] += 1;  // @global_memory_without_a_barrier
}

extern "C" __global__ void __cluster_dims__(2) global_memory_after_syncthreads(int* y) {
  if (ptx::cluster_rank() == 0) y[threadIdx.x] = 1;  // @global_memory_after_syncthreads_writer
  __syncthreads();
  if (ptx::cluster_rank() == 1) y[threadIdx.x] = 2;  // @global_memory_after_syncthreads
}

// A barrier without release, if only of one warp, orders nothing.
extern "C" __global__ void __cluster_dims__(2) global_memory_after_a_relaxed_barrier(int* y) {
  if (ptx::cluster_rank() == 0)
    y[threadIdx.x] = 1;  // @global_memory_after_a_relaxed_barrier_writer
  if (ptx::cluster_rank() == 0)
    ptx::cluster_sync_relaxed();
  else
    ptx::cluster_sync();
  if (ptx::cluster_rank() == 1) y[threadIdx.x] = 2;  // @global_memory_after_a_relaxed_barrier
}

// The first block brings both boxes; it waits until it has read the first itself.
extern "C" __global__ void __cluster_dims__(2)
overwrites_too_early(const __grid_constant__ Map map, float* y) {
  init_for_all_blocks(1);
  for (int i = 0; i < 2; i++) {
    if (threadIdx.x == 0) {
      ptx::mbar_expect_tx(&ready, sizeof box);  // @overwrites_too_early_arrival
      if (ptx::cluster_rank() == 0)
        ptx::tma_load_3d_multicast(box, &map, 0, 0, i, &ready, 3);  // @overwrites_too_early
    }
    ptx::mbar_wait(&ready, i);
    y[blockIdx.x * 32 + threadIdx.x] = box[threadIdx.x];  // @overwrites_too_early_reader
    __syncwarp();
  }
  ptx::cluster_sync();
}

// As many warps have read it as must, but those of the first block twice.
__shared__ unsigned long long empty;
extern "C" __global__ void __cluster_dims__(2)
freed_by_the_wrong_block(const __grid_constant__ Map map, float* y) {
  if (threadIdx.x == 0) ptx::mbar_init(&empty, 2);
  init_for_all_blocks(1);
  for (int i = 0; i < 2; i++) {
    if (threadIdx.x == 0) {
      ptx::mbar_wait(&empty, i ^ 1);
      ptx::mbar_expect_tx(&ready, sizeof box);  // @freed_by_the_wrong_block_arrival
      if (ptx::cluster_rank() == 0)
        ptx::tma_load_3d_multicast(box, &map, 0, 0, i, &ready, 3);  // @freed_by_the_wrong_block
    }
    __syncwarp();
    ptx::mbar_wait(&ready, i);
    y[blockIdx.x * 32 + threadIdx.x] = box[threadIdx.x];  // @freed_by_the_wrong_block_reader
    __syncwarp();
    if (threadIdx.x < 2) ptx::mbar_arrive(&empty);
  }
  ptx::cluster_sync();
}

extern "C" __global__ void __cluster_dims__(2)
overwrites_without_a_fence(const __grid_constant__ Map map) {
  box[threadIdx.x] = 0.f;
  init_for_all_blocks(1);
  if (threadIdx.x == 0) {
    ptx::mbar_expect_tx(&ready, sizeof box);
    if (ptx::cluster_rank() == 0)
      ptx::tma_load_3d_multicast(box, &map, 0, 0, 0, &ready, 2);  // @overwrites_without_a_fence
  }
  ptx::cluster_sync();
}
