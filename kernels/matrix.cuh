// Matrices of any strides in global memory, read and written one pack of a row at a time.
#pragma once
#include "element.cuh"

// Reads N neighbouring elements of a row, aligned for Pack<Element, N>.
template <int N>
__device__ __forceinline__ void load_pack(const Element* p, Accumulator (&value)[N]) {
  const Pack<Element, N> pack = *reinterpret_cast<const Pack<Element, N>*>(p);
#pragma unroll
  for (int e = 0; e < N; ++e) value[e] = widen(pack.v[e]);
}

// Reads N elements of a row from `column` on, one by one; those from `columns` on count as zero.
template <int N>
__device__ __forceinline__ void load_each(const Element* row, Offset column_stride, Offset column,
                                          Offset columns, Accumulator (&value)[N]) {
#pragma unroll
  for (int e = 0; e < N; ++e)
    value[e] = column + e < columns ? Accumulator(widen(row[(column + e) * column_stride]))
                                    : Accumulator(0);
}

// Reads N elements of a row from `column` on; those from `columns` on count as zero.
// packed: column_stride is 1, and every N-th element of the row is aligned for Pack<Element, N>.
template <int N>
__device__ __forceinline__ void load_row(const Element* row, Offset column_stride, Offset column,
                                         Offset columns, bool packed, Accumulator (&value)[N]) {
  if (packed && column + N <= columns)
    load_pack(row + column, value);
  else
    load_each(row, column_stride, column, columns, value);
}

// Writes N elements of a row, or adds to them, with one rounding.
template <int N, typename T>
__device__ __forceinline__ void store_row(T* row, Offset column_stride, Offset column,
                                          Offset columns, bool packed, bool accumulate,
                                          const Accumulator (&value)[N]) {
  if (packed && column + N <= columns) {
    Pack<T, N>* target = reinterpret_cast<Pack<T, N>*>(row + column);
    Pack<T, N> pack;
    if (accumulate) {
      pack = *target;
#pragma unroll
      for (int e = 0; e < N; ++e) pack.v[e] = Narrow<T>::from(widen(pack.v[e]) + value[e]);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) pack.v[e] = Narrow<T>::from(value[e]);
    }
    *target = pack;
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e)
      if (column + e < columns) {
        T* p = row + (column + e) * column_stride;
        *p = Narrow<T>::from(accumulate ? widen(*p) + value[e] : value[e]);
      }
  }
}
