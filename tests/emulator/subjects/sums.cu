// Sums of rows (warp shuffles, then shared memory) and of columns (shared memory, then atomics).
extern "C" __global__ void __launch_bounds__(256)
row_sums(const float* __restrict__ x, float* __restrict__ y, int rows, int columns) {
  __shared__ float part[8];
  float sum = 0.f;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    sum += x[(size_t)blockIdx.x * columns + c];
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.f;
    for (int d = 4; d; d >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, d);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
  }
}

template <typename T>
__global__ void column_sums(const T* __restrict__ x, float* __restrict__ y, int rows,
                            int columns) {
  __shared__ float part[8][33];  // [row group][column]
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (column < columns) {
    for (int r = blockIdx.y * blockDim.y + threadIdx.y; r < rows; r += blockDim.y * gridDim.y) {
      sum += float(x[(size_t)r * columns + column]);
    }
  }
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y < 4) {  // eight neighbouring lanes hold one column; two rounds of 16 columns
    const int t = threadIdx.y * 32 + threadIdx.x;
    for (int round = 0; round < 2; round++) {
      float v = part[t % 8][round * 16 + t / 8];
      for (int d = 4; d; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d, 8);
      const int c = blockIdx.x * 32 + round * 16 + t / 8;
      if (t % 8 == 0 && c < columns) atomicAdd(&y[c], v);
    }
  }
}
