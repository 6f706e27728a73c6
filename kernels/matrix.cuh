// Matrices of any strides in global memory, read and written one pack of a row at a time.
#pragma once
#include "element.cuh"

// Reads N adjacent elements of a row, aligned for Pack<Element, N>.
template <int N>
__device__ __forceinline__ Pack<Element, N> load_pack(const Element* p) {
  return *reinterpret_cast<const Pack<Element, N>*>(p);
}

template <int N>
__device__ __forceinline__ void widen_pack(const Pack<Element, N>& pack, Accumulator (&value)[N]) {
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
    widen_pack(load_pack<N>(row + column), value);
  else
    load_each(row, column_stride, column, columns, value);
}

// Writes an element, or adds to it, with one rounding.
template <typename T>
__device__ __forceinline__ void store_one(T* p, bool accumulate, Accumulator value) {
  *p = Narrow<T>::from(accumulate ? widen(*p) + value : value);
}

// The type of one store instruction.
template <int BYTES> struct Word { typedef uint4 Type; };
template <> struct Word<8> { typedef uint2 Type; };
template <> struct Word<4> { typedef unsigned Type; };

// Writes a pack with one vectorized store for each word. An assignment of the whole pack would
// become scalar stores: the compiler merges it with the stores of the path that writes element by
// element (seen in SASS for compute capabilities up to 9.0).
template <typename T, int N>
__device__ __forceinline__ void write_pack(T* p, const Pack<T, N>& pack) {
  typedef typename Word<int(sizeof(pack))>::Type W;
  W words[sizeof(pack) / sizeof(W)];
  memcpy(words, &pack, sizeof(pack));
#pragma unroll
  for (int i = 0; i < int(sizeof(pack) / sizeof(W)); ++i)
    __stwb(reinterpret_cast<W*>(p) + i, words[i]);
}

// Writes N adjacent elements, aligned for Pack<T, N>, or adds to them.
template <int N, typename T>
__device__ __forceinline__ void store_pack(T* p, bool accumulate, const Accumulator (&value)[N]) {
  Pack<T, N> pack;
  if (accumulate) {
    pack = *reinterpret_cast<const Pack<T, N>*>(p);
#pragma unroll
    for (int e = 0; e < N; ++e) pack.v[e] = Narrow<T>::from(widen(pack.v[e]) + value[e]);
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) pack.v[e] = Narrow<T>::from(value[e]);
  }
  write_pack(p, pack);
}

// Writes N elements of a row from `column` on, those before `columns`, or adds to them.
template <int N, typename T>
__device__ __forceinline__ void store_row(T* row, Offset column_stride, Offset column,
                                          Offset columns, bool packed, bool accumulate,
                                          const Accumulator (&value)[N]) {
  if (packed && column + N <= columns) {
    store_pack(row + column, accumulate, value);
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e)
      if (column + e < columns)
        store_one(row + (column + e) * column_stride, accumulate, value[e]);
  }
}
