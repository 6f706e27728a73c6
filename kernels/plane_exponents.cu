// plane_exponents: exponent = 13 − ⌊log₂ max |x|⌋ over the finite elements of each row or column, 0
// where all are zero, from the partial maxima that the kernel plane_maxima stores of both. Where
// GRADIENT is defined, x is dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is too.
//
// shapes    x (or dy), saved (y or z; null without GRADIENT): (rows, columns), any strides, in
//           elements; row_maxima: (column blocks, rows) or null; column_maxima: (splits, columns)
//           or null; partial: one of them as (parts, count); exponents: (count,)
// launch    plane_maxima: grid (⌈columns / (block_x VECTOR)⌉, splits), block (block_x, block_y),
//           powers of two, block_x ≤ 32, block_x block_y = THREADS;
//           plane_exponents: grid (⌈count / SUMS⌉), block (SUMS, THREADS_PER_SUM)
// shared    plane_maxima: VECTOR × THREADS accumulators, static; plane_exponents:
//           THREADS_PER_SUM × SUMS accumulators, static
// requires  packed: column strides of all matrices 1, every row 16-byte aligned; parts ≥ 1
// traffic   reads x or dy and saved once, writes a maximum for every 128 elements of a row and for
//           every split of a column, which plane_exponents reads once
// order     none: maxima do not depend on it
#include "matrix.cuh"
#include "sigmoid.cuh"

typedef unsigned Magnitude;  // the bits of a finite |x|, which are ordered as the magnitudes are
static_assert(sizeof(Magnitude) == sizeof(Accumulator), "counted as an accumulator");

constexpr int LARGEST_EXPONENT = 13;  // of the largest magnitude, once it is scaled
static_assert(THREADS_PER_SUM * SUMS == THREADS, "the launch bound is the block");

// 0 for an infinity or a NaN.
__device__ __forceinline__ Magnitude finite_magnitude(float x) {
  return is_finite(x) ? __float_as_uint(x) & 0x7fffffffu : 0u;
}

// 13 − ⌊log₂ magnitude⌋, subnormal numbers included.
__device__ __forceinline__ int exponent_of(Magnitude magnitude) {
  if (magnitude == 0) return 0;
  const int log2 = magnitude >> 23 ? int(magnitude >> 23) - 127 : 31 - __clz(magnitude) - 149;
  return LARGEST_EXPONENT - log2;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
plane_maxima(const Element* __restrict__ x, Offset x_row, Offset x_column,
             const Element* __restrict__ saved, Offset saved_row, Offset saved_column,
             Magnitude* __restrict__ row_maxima, Magnitude* __restrict__ column_maxima, Offset rows,
             Offset columns, Offset split_length, int packed) {
  __shared__ Magnitude smem[VECTOR][THREADS];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;  // [0, THREADS)
  const Offset column = (Offset(blockIdx.x) * blockDim.x + threadIdx.x) * VECTOR;
  const Offset split = blockIdx.y * split_length;
  const Offset last = split + split_length < rows ? split + split_length : rows;
  Magnitude of_column[VECTOR] = {};

  for (Offset first = split; first < last; first += ROWS_IN_FLIGHT * blockDim.y) {
    Accumulator value[ROWS_IN_FLIGHT][VECTOR] = {};
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
      const Offset row = first + r * blockDim.y + threadIdx.y;
      if (row < last) load_row(x + row * x_row, x_column, column, columns, packed, value[r]);
    }
#if defined(GRADIENT)
    Accumulator s[ROWS_IN_FLIGHT][VECTOR] = {};
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
      const Offset row = first + r * blockDim.y + threadIdx.y;
      if (row < last)
        load_row(saved + row * saved_row, saved_column, column, columns, packed, s[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r)
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) value[r][e] = sigmoid_gradient(value[r][e], s[r][e]);
#endif
#pragma unroll
    for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
      Magnitude of_row = 0;
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) {
        const Magnitude magnitude = finite_magnitude(value[r][e]);
        of_row = max(of_row, magnitude);
        of_column[e] = max(of_column[e], magnitude);
      }
      if (row_maxima) {
        for (int half = blockDim.x / 2; half > 0; half /= 2)
          of_row = max(of_row, __shfl_xor_sync(0xffffffffu, of_row, half));
        const Offset row = first + r * blockDim.y + threadIdx.y;
        if (threadIdx.x == 0 && row < last) row_maxima[blockIdx.x * rows + row] = of_row;
      }
    }
  }
  if (!column_maxima) return;
#pragma unroll
  for (int e = 0; e < VECTOR; ++e) smem[e][thread] = of_column[e];
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half)
#pragma unroll
      for (int e = 0; e < VECTOR; ++e)
        smem[e][thread] = max(smem[e][thread], smem[e][thread + half * blockDim.x]);
  }
  if (threadIdx.y > 0) return;
#pragma unroll
  for (int e = 0; e < VECTOR; ++e)
    if (column + e < columns) column_maxima[blockIdx.y * columns + column + e] = smem[e][thread];
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
plane_exponents(const Magnitude* __restrict__ partial, Offset parts, int* __restrict__ exponents,
                Offset count) {
  __shared__ Magnitude smem[THREADS_PER_SUM][SUMS];
  const Offset index = Offset(blockIdx.x) * SUMS + threadIdx.x;  // [0, count)
  Magnitude largest = 0;
  if (index < count)
    for (Offset part = threadIdx.y; part < parts; part += THREADS_PER_SUM)
      largest = max(largest, partial[part * count + index]);
  smem[threadIdx.y][threadIdx.x] = largest;
  __syncthreads();
  if (threadIdx.y > 0 || index >= count) return;
#pragma unroll
  for (int thread = 1; thread < THREADS_PER_SUM; ++thread)
    largest = max(largest, smem[thread][threadIdx.x]);
  exponents[index] = exponent_of(largest);
}
