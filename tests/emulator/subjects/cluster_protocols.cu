// What the blocks of a cluster share, and what each has for itself.

extern "C" __global__ void __cluster_dims__(2, 3, 1) places(int* y) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) y[block] = ptx::cluster_rank();
}

extern "C" __global__ void places_without_clusters(int* y) {
  ptx::cluster_sync();
  y[blockIdx.x] = ptx::cluster_rank();
}

__shared__ int own[40];

__device__ int next_item() { return own[(threadIdx.x + 1) % blockDim.x]; }

// 40 threads: one whole warp and a part of one.
extern "C" __global__ void __cluster_dims__(4) own_shared_memory(int* y) {
  __shared__ int sum;
  extern __shared__ int dynamic[];
  own[threadIdx.x] = dynamic[threadIdx.x] = blockIdx.x * 100 + threadIdx.x;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, 1);
  const int next = next_item(), same = dynamic[threadIdx.x];
  const int first = __shfl_sync(0xffffffffu, same, 0);
  ptx::cluster_sync();
  y[blockIdx.x * 40 + threadIdx.x] = next_item() == next ? next + same + first * sum : -1;
}

// Three blocks write, all wait, the fourth reads; those that have exited are not waited for.
extern "C" __global__ void __cluster_dims__(4) through_global_memory(int* y, int* sums) {
  if (threadIdx.x % 2) return;
  const unsigned rank = ptx::cluster_rank();
  if (rank == 3 && threadIdx.x > 8) {
    __nanosleep(100);  // until all others wait
    return;
  }
  if (rank < 3) y[blockIdx.x * 32 + threadIdx.x] = blockIdx.x + threadIdx.x;
  ptx::cluster_sync();
  if (rank < 3 || threadIdx.x) return;
  int sum = 0;
  for (int b = blockIdx.x - 3; b < blockIdx.x; b++)
    for (int t = 0; t < 32; t += 2) sum += y[b * 32 + t];
  sums[blockIdx.x / 4] = sum;
}

extern "C" __global__ void __cluster_dims__(2, 2, 2) largest_cluster(int* y) {
  __shared__ int box[1024];
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  box[threadIdx.x] = block + threadIdx.x;
  ptx::cluster_sync();
  y[block * 1024 + threadIdx.x] = box[1023 - threadIdx.x];
}

// What a thread writes reaches another block by way of a third, and of another thread there.
extern "C" __global__ void __cluster_dims__(3) through_a_third(int* y) {
  __shared__ unsigned long long told, passed;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&told, 1);
    ptx::mbar_init(&passed, 1);
  }
  ptx::cluster_sync();
  const unsigned rank = ptx::cluster_rank();
  if (rank == 0 && threadIdx.x == 0) {
    y[0] = 1;
    ptx::mbar_arrive_cluster(&told, 1);
  }
  if (rank == 1) {
    if (threadIdx.x == 5) ptx::mbar_wait(&told, 0);
    __syncthreads();
    if (threadIdx.x == 40) ptx::mbar_arrive_cluster(&passed, 2);
  }
  if (rank == 2 && threadIdx.x == 7) {
    ptx::mbar_wait(&passed, 0);
    y[0]++;
    return;
  }
  ptx::cluster_sync();
}

// The first block's thread has exited when the others meet, but one of them has heard of it.
extern "C" __global__ void __cluster_dims__(3) after_an_exit(int* y) {
  __shared__ unsigned long long told;
  if (threadIdx.x == 0) ptx::mbar_init(&told, 1);
  ptx::cluster_sync();
  const unsigned rank = ptx::cluster_rank();
  if (rank == 0) {
    if (threadIdx.x > 0) return;
    y[0] = 1;
    ptx::mbar_arrive_cluster(&told, 1);
    return;
  }
  if (rank == 1 && threadIdx.x == 5) ptx::mbar_wait(&told, 0);
  ptx::cluster_sync();
  if (rank == 2 && threadIdx.x == 7) y[0]++;
}

// Barriers and registers are each block's own: here the ranks use them differently.
extern "C" __global__ void __launch_bounds__(256, 2) __cluster_dims__(2) own_barriers(int* y) {
  __shared__ int box[256];
  const int group = threadIdx.x / 128;
  const bool gives = group == int(ptx::cluster_rank());
  if (gives)
    ptx::setmaxnreg_dec<40>();
  else
    ptx::setmaxnreg_inc<216>();
  box[threadIdx.x] = threadIdx.x;
  if (ptx::cluster_rank() == 0)
    ptx::bar_sync(1, 256);
  else
    __syncthreads();
  y[blockIdx.x * 256 + threadIdx.x] = box[255 - threadIdx.x];
}

// Each block signals the next: each adds its rank.
extern "C" __global__ void __cluster_dims__(8) pass_round(int* y) {
  __shared__ unsigned long long turn;
  if (threadIdx.x == 0) ptx::mbar_init(&turn, 1);
  ptx::cluster_sync();
  if (threadIdx.x == 0) {
    const unsigned rank = ptx::cluster_rank();
    if (rank > 0) ptx::mbar_wait(&turn, 0);
    int& sum = y[blockIdx.x / 8];
    sum = rank == 0 ? 0 : sum + rank;
    if (rank < 7) ptx::mbar_arrive_cluster(&turn, rank + 1);
  }
  ptx::cluster_sync();
}
