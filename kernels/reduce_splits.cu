// reduce_splits: out = Σ_s partial_s, or out += Σ_s partial_s; the second stage of split sums.
//
// shapes    partial: (splits, rows, columns), contiguous; out: (rows, columns), any strides
// launch    grid (⌈rows columns / 32⌉), block (32, 8)
// shared    8 × 32 accumulators, static
// requires  splits ≥ 1
// traffic   reads partial once, writes out once; 1 flop an accumulator
// order     every eighth split ascending, then the eight sums ascending
#include "matrix.cuh"

constexpr int LANES = 8;
constexpr int COLUMNS = 32;
static_assert(LANES * COLUMNS == THREADS, "the launch bound is the block");

extern "C" __global__ void __launch_bounds__(THREADS, 4)
reduce_splits(const Accumulator* __restrict__ partial, Offset splits, Result* out, Offset out_row,
              Offset out_column, Offset rows, Offset columns, int accumulate) {
  __shared__ Accumulator lanes[LANES][COLUMNS];
  const Offset count = rows * columns;
  const Offset index = Offset(blockIdx.x) * COLUMNS + threadIdx.x;  // [0, count)
  Accumulator sum = 0;
  if (index < count)
    for (Offset s = threadIdx.y; s < splits; s += LANES) sum += partial[s * count + index];
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || index >= count) return;
#pragma unroll
  for (int lane = 1; lane < LANES; ++lane) sum += lanes[lane][threadIdx.x];
  store_one(out + index / columns * out_row + index % columns * out_column, accumulate, sum);
}
