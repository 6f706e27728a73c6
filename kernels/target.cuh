// Where a matrix product goes: the result, or partial sums of the splits of its contraction.
#pragma once
#include "matrix.cuh"

// C (rows, columns) of any strides, or one plane of partial sums for each split.
template <typename T>
struct Target {
  T* out;
  Offset row_stride, column_stride;
  Accumulator* partial;  // (splits, rows, columns), where there are several
  int packed;            // rows of C can be stored in aligned packs of four
  int accumulate;
};

// The epilogue that leaves the product as it is.
struct Same {
  __device__ __forceinline__ void operator()(Offset, Accumulator (&)[4]) const {}
};

// Brings four neighbouring sums of a row below `rows`, of one of so many splits, to where they
// belong; finish(column, value) is applied to them on their way into C.
template <typename T, typename Finish>
__device__ __forceinline__ void store_sums(const Target<T>& target, Offset split, Offset splits,
                                           Offset row, Offset column, Offset rows, Offset columns,
                                           const Finish& finish, Accumulator (&value)[4]) {
  if (splits > 1) {
    Accumulator* plane = target.partial + split * rows * columns + row * columns;
    store_row(plane, 1, column, columns, columns % 4 == 0, false, value);
  } else {
    finish(column, value);
    store_row(target.out + row * target.row_stride, target.column_stride, column, columns,
              target.packed, target.accumulate, value);
  }
}

// Where each row of blocks computes one split.
template <typename T, typename Finish>
__device__ __forceinline__ void store_sums(const Target<T>& target, Offset row, Offset column,
                                           Offset rows, Offset columns, const Finish& finish,
                                           Accumulator (&value)[4]) {
  store_sums(target, blockIdx.y, gridDim.y, row, column, rows, columns, finish, value);
}
