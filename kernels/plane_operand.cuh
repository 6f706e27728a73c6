// Operands of products on tensor cores: matrices as planes in global memory; and what is left to do
// for a sum of such products before it is a result.
#pragma once
#include "planes.cuh"

// An operand (outer, contraction) as planes (PLANE_COUNT, rows, columns): a row is an outer index if
// ALONG, an index of the contraction if not.
template <bool ALONG>
struct PlaneOperand {
  const Plane* p;
  Offset row_stride, plane_stride;
  const int* exponent;  // of each outer index; not read without WITH_EXPONENTS

  __device__ __forceinline__ float value(Offset outer, Offset q) const {
    const Plane* at = p + (ALONG ? outer * row_stride + q : q * row_stride + outer);
    Plane plane[PLANE_COUNT];
#pragma unroll
    for (int i = 0; i < PLANE_COUNT; ++i) plane[i] = at[i * plane_stride];
    return WITH_EXPONENTS ? ldexpf(joined(plane), -exponent[outer]) : joined(plane);
  }
};

#if defined(LEFT_ACROSS)
typedef PlaneOperand<false> LeftPlanes;
#else
typedef PlaneOperand<true> LeftPlanes;
#endif
#if defined(RIGHT_ACROSS)
typedef PlaneOperand<false> RightPlanes;
#else
typedef PlaneOperand<true> RightPlanes;
#endif

// Σ_q left(row, q) right(column, q) by plain multiply-adds.
template <typename Left, typename Right>
__device__ __forceinline__ float plain_sum(const Left& left, const Right& right, Offset row,
                                           Offset column, Offset first, Offset last) {
  float sum = 0;
#pragma unroll 1
  for (Offset q = first; q < last && sum == sum; ++q)  // a NaN stays one
    sum = multiply_add(left.value(row, q), right.value(column, q), sum);
  return sum;
}

// Brings a sum of products of planes to the scale of the values behind them.
template <typename Left, typename Right>
__device__ __forceinline__ float brought_to_scale(const Left& left, const Right& right, Offset row,
                                                  Offset column, float sum) {
  return WITH_EXPONENTS ? ldexpf(sum, -left.exponent[row] - right.exponent[column])
                        : sum * (UNSHIFT * UNSHIFT);
}

// Reads four neighbouring sums in shared memory and brings them to scale; those from `columns` on
// are none. A sum that is not finite is replaced by what IEEE arithmetic gives, in one loop for all
// four: unrolled, this rare case would be half of the kernel's code.
template <typename Left, typename Right>
__device__ __forceinline__ Pack<float, 4> finished(const Left& left, const Right& right, Offset row,
                                                   Offset column, Offset columns, Offset first,
                                                   Offset last, float* sums) {
  auto pack = *reinterpret_cast<const Pack<float, 4>*>(sums);
  bool finite = true;
#pragma unroll
  for (int e = 0; e < 4; ++e) finite = finite && is_finite(pack.v[e]);
  if (finite) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (column + e < columns)
        pack.v[e] = brought_to_scale(left, right, row, column + e, pack.v[e]);
    return pack;
  }
#pragma unroll 1
  for (int e = 0; e < 4 && column + e < columns; ++e)
    sums[e] = is_finite(sums[e]) ? brought_to_scale(left, right, row, column + e, sums[e])
                                 : plain_sum(left, right, row, column + e, first, last);
  return *reinterpret_cast<const Pack<float, 4>*>(sums);
}
