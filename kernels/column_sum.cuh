// Sums over the rows of an (n, m) matrix, in a fixed order and without atomics.
//
// A block of blockDim.x × blockDim.y threads sums blockDim.x · VECTOR columns over one split of the
// rows: each thread every blockDim.y-th row in ascending order, then a binary tree over
// threadIdx.y. Several splits leave partial sums (splits, m) for reduce_splits, which adds them in
// a fixed order too.
#pragma once
#include "matrix.cuh"

struct ColumnSums {
  Accumulator* partial;  // (gridDim.y, m), where gridDim.y > 1
  Result* db;            // (m,), where gridDim.y is 1; null if no sums are wanted
  Offset db_stride;
  bool accumulate;
};

// Adds a thread's rows, first, first + step, … below last, VECTOR columns in aligned packs.
// ROWS_IN_FLIGHT rows are loaded before the first is added or stored: results may overwrite inputs,
// so that the compiler cannot move loads before stores.
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

// source.take(source.load(row, column), row, column, value) sets VECTOR values of a row from
// `column` on, inside the matrix and aligned; source.one(row, column) returns one value at any
// address.
template <typename Source>
__device__ __forceinline__ void column_sum(const Source& source, bool packed, Offset n, Offset m,
                                           Offset split_length, const ColumnSums& sums) {
  __shared__ Accumulator smem[VECTOR][THREADS];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;  // [0, THREADS)
  const Offset column = (Offset(blockIdx.x) * blockDim.x + threadIdx.x) * VECTOR;
  const Offset split = blockIdx.y * split_length;
  const Offset last = split + split_length < n ? split + split_length : n;
  const Offset first = split + threadIdx.y;

  if (packed && column + VECTOR <= m) {
    Accumulator sum[VECTOR] = {};
    sum_packs(source, first, last, blockDim.y, column, sum);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) smem[e][thread] = sum[e];
  } else {
#pragma unroll 1
    for (int e = 0; e < VECTOR; ++e) {
      Accumulator sum = 0;
      if (column + e < m)
        for (Offset row = first; row < last; row += blockDim.y) sum += source.one(row, column + e);
      smem[e][thread] = sum;
    }
  }
  if (!sums.db) return;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half)
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) smem[e][thread] += smem[e][thread + half * blockDim.x];
  }
  if (threadIdx.y > 0) return;
#pragma unroll
  for (int e = 0; e < VECTOR; ++e)
    if (column + e < m) {
      const Accumulator total = smem[e][thread];
      if (gridDim.y > 1) {
        sums.partial[blockIdx.y * m + column + e] = total;
      } else {
        store_one(sums.db + (column + e) * sums.db_stride, sums.accumulate, total);
      }
    }
}
