// reduce_splits: out = Σ_s partial_s, or out += Σ_s partial_s; the second stage of split-K and of
// other split sums. reduce_layer_splits does so for dw and db of a layer at once.
//
// shapes    partial: (splits, rows, columns), contiguous; out: (rows, columns), any strides;
//           dw_partial: (splits, k, m), db_partial: (splits, m), contiguous; dw: (k, m), db: (m,),
//           any strides
// launch    reduce_splits: grid (⌈rows columns / SUMS⌉), block (SUMS, THREADS_PER_SUM);
//           reduce_layer_splits: grid (⌈(k + 1) m / SUMS⌉), block (SUMS, THREADS_PER_SUM)
// shared    THREADS_PER_SUM × SUMS accumulators, static
// requires  splits ≥ 1
// traffic   reads partial once, writes out once; 1 flop an accumulator
// order     a thread's every THREADS_PER_SUM-th split ascending, then threads ascending
#include "matrix.cuh"

static_assert(THREADS_PER_SUM * SUMS == THREADS, "the launch bound is the block");

// Σ_s partial[s count + index] for index in [0, count), for the threads with threadIdx.y 0.
__device__ __forceinline__ Accumulator sum_of_splits(const Accumulator* partial, Offset splits,
                                                     Offset count, Offset index) {
  __shared__ Accumulator smem[THREADS_PER_SUM][SUMS];
  Accumulator sum = 0;
  if (index < count)
    for (Offset s = threadIdx.y; s < splits; s += THREADS_PER_SUM)
      sum += partial[s * count + index];
  smem[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0) return 0;
#pragma unroll
  for (int thread = 1; thread < THREADS_PER_SUM; ++thread) sum += smem[thread][threadIdx.x];
  return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
reduce_splits(const Accumulator* __restrict__ partial, Offset splits, Result* out, Offset out_row,
              Offset out_column, Offset rows, Offset columns, int accumulate) {
  const Offset count = rows * columns;
  const Offset index = Offset(blockIdx.x) * SUMS + threadIdx.x;  // [0, count)
  const Accumulator sum = sum_of_splits(partial, splits, count, index);
  if (threadIdx.y > 0 || index >= count) return;
  store_one(out + index / columns * out_row + index % columns * out_column, accumulate, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
reduce_layer_splits(const Accumulator* __restrict__ dw_partial,
                    const Accumulator* __restrict__ db_partial, Offset splits, Result* dw,
                    Offset dw_row, Offset dw_column, Result* db, Offset db_stride, Offset k,
                    Offset m, int accumulate_dw, int accumulate_db) {
  const Offset index = Offset(blockIdx.x) * SUMS + threadIdx.x;  // [0, k m + m)
  const bool of_dw = index < k * m;
  const Offset count = of_dw ? k * m : m;
  const Offset own = of_dw ? index : index - k * m;  // [0, count)
  const Accumulator sum = sum_of_splits(of_dw ? dw_partial : db_partial, splits, count, own);
  if (threadIdx.y > 0 || own >= count) return;
  if (of_dw)
    store_one(dw + own / m * dw_row + own % m * dw_column, accumulate_dw, sum);
  else
    store_one(db + own * db_stride, accumulate_db, sum);
}
