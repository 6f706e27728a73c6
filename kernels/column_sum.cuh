// Sums over the rows of an (n, m) matrix, in a fixed order and without atomics.
//
// A block of lanes_x × lanes_y threads sums lanes_x · VECTOR columns over one split of the rows:
// each thread every lanes_y-th row in ascending order, then a binary tree over the lanes. Several
// splits leave their sums in `partial` (splits, m) for reduce_splits, which adds them in order.
#pragma once
#include "matrix.cuh"

// Loads that are under way before the first of them is added: 64 or 32 bytes a matrix and thread.
constexpr int ROWS_IN_FLIGHT = VECTOR > 4 ? 2 : 4;

struct ColumnSums {
  Accumulator* partial;  // (gridDim.y, m), where gridDim.y > 1
  Result* db;            // (m,), where gridDim.y is 1
  Offset db_stride;
  bool accumulate;
};

// Adds the rows of one lane, ROWS of them in flight: row, row + step, ... below last.
template <int ROWS, bool PACKED, typename Source>
__device__ __forceinline__ void lane_sum(const Source& source, Offset row, Offset last, int step,
                                         Offset column, Accumulator (&sum)[VECTOR]) {
  for (; row < last; row += ROWS * step) {
    Accumulator value[ROWS][VECTOR];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      if (row + r * step < last) {
        source.template read<PACKED>(row + r * step, column, value[r]);
      } else {
#pragma unroll
        for (int e = 0; e < VECTOR; ++e) value[r][e] = 0;
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) sum[e] += value[r][e];
  }
}

// source.read<PACKED>(row, column, value) gives VECTOR values of a row from `column` on: all of
// them inside the matrix and in aligned packs, or one by one and zero beyond the matrix.
template <typename Source>
__device__ __forceinline__ void column_sum(const Source& source, bool packed, Offset n, Offset m,
                                           Offset split_length, const ColumnSums& sums) {
  __shared__ Accumulator lanes[VECTOR][THREADS];
  const int lane = threadIdx.y * blockDim.x + threadIdx.x;  // [0, THREADS)
  const Offset column = (Offset(blockIdx.x) * blockDim.x + threadIdx.x) * VECTOR;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < n ? first + split_length : n;

  Accumulator sum[VECTOR] = {};
  if (packed && column + VECTOR <= m)
    lane_sum<ROWS_IN_FLIGHT, true>(source, first + threadIdx.y, last, blockDim.y, column, sum);
  else if (column < m)
    lane_sum<1, false>(source, first + threadIdx.y, last, blockDim.y, column, sum);

#pragma unroll
  for (int e = 0; e < VECTOR; ++e) lanes[e][lane] = sum[e];
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
        Result* p = sums.db + (column + e) * sums.db_stride;
        *p = Narrow<Result>::from(sums.accumulate ? widen(*p) + total : total);
      }
    }
}
