// The destination of a GEMM: C, or the partial sums of split-K.
#pragma once
#include "matrix.cuh"

// C (M, N) of any strides, or a matrix of partial sums for each split.
template <typename T>
struct Target {
  T* out;
  Offset row_stride, column_stride;
  Accumulator* partial;  // (splits, M, N), where there are several splits
  int packed;            // column_stride is 1, and rows of C are aligned for packs of four
  int accumulate;
};

// The epilogue that changes nothing.
struct Identity {
  __device__ __forceinline__ void operator()(Offset, Accumulator (&)[4]) const {}
};

// Stores four adjacent sums of a row < M of C, after epilogue(column, value); with split-K, as they
// are, in the partial sums of their split.
template <typename T, typename Epilogue>
__device__ __forceinline__ void store_sums(const Target<T>& target, Offset split, Offset splits,
                                           Offset row, Offset column, Offset M, Offset N,
                                           const Epilogue& epilogue, Accumulator (&value)[4]) {
  if (splits > 1) {
    Accumulator* sums = target.partial + split * M * N + row * N;
    store_row(sums, 1, column, N, N % 4 == 0, false, value);
  } else {
    epilogue(column, value);
    store_row(target.out + row * target.row_stride, target.column_stride, column, N,
              target.packed, target.accumulate, value);
  }
}

// The same where blockIdx.y is the split.
template <typename T, typename Epilogue>
__device__ __forceinline__ void store_sums(const Target<T>& target, Offset row, Offset column,
                                           Offset M, Offset N, const Epilogue& epilogue,
                                           Accumulator (&value)[4]) {
  store_sums(target, blockIdx.y, gridDim.y, row, column, M, N, epilogue, value);
}
