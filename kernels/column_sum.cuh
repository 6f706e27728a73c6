// Sums over the rows of an (n, m) matrix, in a fixed order and without atomics.
//
// A block of lanes_x × lanes_y threads sums lanes_x · VECTOR columns over one split of the rows:
// each thread every lanes_y-th row in ascending order, then a binary tree over the lanes. Several
// splits leave their sums in `partial` (splits, m) for reduce_splits, which adds them in a fixed
// order too.
#pragma once
#include "matrix.cuh"

struct ColumnSums {
  Accumulator* partial;  // (gridDim.y, m), where gridDim.y > 1
  Result* db;            // (m,), where gridDim.y is 1; null if no sums are wanted
  Offset db_stride;
  bool accumulate;
};

// Adds a lane's rows, first, first + step, … below last, VECTOR columns in aligned packs.
// ROWS_IN_FLIGHT rows are loaded before the first of them is added (or stored: results may
// overwrite inputs, so that the compiler cannot move a load before a store by itself).
template <typename Source>
__device__ __forceinline__ void sum_packs(const Source& source, Offset first, Offset last, int step,
                                          Offset column, Accumulator (&sum)[VECTOR]) {
  for (Offset row = first; row < last; row += ROWS_IN_FLIGHT * step) {
    typename Source::Loaded loaded[ROWS_IN_FLIGHT];
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r)
      if (row + r * step < last) loaded[r] = source.load(row + r * step, column);
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r)
      if (row + r * step < last) {
        Accumulator value[VECTOR];
        source.take(loaded[r], row + r * step, column, value);
#pragma unroll
        for (int e = 0; e < VECTOR; ++e) sum[e] += value[e];
      }
  }
}

// A row's VECTOR values from `column` on, inside the matrix and aligned, are what
// source.take(source.load(row, column), row, column, value) gives; source.one(row, column) is one
// value at any address.
template <typename Source>
__device__ __forceinline__ void column_sum(const Source& source, bool packed, Offset n, Offset m,
                                           Offset split_length, const ColumnSums& sums) {
  __shared__ Accumulator lanes[VECTOR][THREADS];
  const int lane = threadIdx.y * blockDim.x + threadIdx.x;  // [0, THREADS)
  const Offset column = (Offset(blockIdx.x) * blockDim.x + threadIdx.x) * VECTOR;
  const Offset split = blockIdx.y * split_length;
  const Offset last = split + split_length < n ? split + split_length : n;
  const Offset first = split + threadIdx.y;

  if (packed && column + VECTOR <= m) {
    Accumulator sum[VECTOR] = {};
    sum_packs(source, first, last, blockDim.y, column, sum);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) lanes[e][lane] = sum[e];
  } else {
#pragma unroll 1
    for (int e = 0; e < VECTOR; ++e) {
      Accumulator sum = 0;
      if (column + e < m)
        for (Offset row = first; row < last; row += blockDim.y) sum += source.one(row, column + e);
      lanes[e][lane] = sum;
    }
  }
  if (!sums.db) return;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half)
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) lanes[e][lane] += lanes[e][lane + half * blockDim.x];
  }
  if (threadIdx.y > 0) return;
#pragma unroll
  for (int e = 0; e < VECTOR; ++e)
    if (column + e < m) {
      const Accumulator total = lanes[e][lane];
      if (gridDim.y > 1) {
        sums.partial[blockIdx.y * m + column + e] = total;
      } else {
        store_one(sums.db + (column + e) * sums.db_stride, sums.accumulate, total);
      }
    }
}
