// GEMM operands as planes in global memory, and the rescaling of sums of their products.
#pragma once
#include "planes.cuh"

// An operand as planes (PLANE_COUNT, rows, columns): A (M, K) and B (N, K) if K-major, A (K, M) and
// B (K, N) if MN-major.
template <bool K_MAJOR>
struct PlaneOperand {
  const Plane* p;
  Offset row_stride, plane_stride;
  const int* exponent;  // of each index of M or N; not read without WITH_EXPONENTS

  __device__ __forceinline__ float value(Offset mn, Offset k) const {
    const Plane* at = p + (K_MAJOR ? mn * row_stride + k : k * row_stride + mn);
    Plane plane[PLANE_COUNT];
#pragma unroll
    for (int i = 0; i < PLANE_COUNT; ++i) plane[i] = at[i * plane_stride];
    return WITH_EXPONENTS ? ldexpf(joined(plane), -exponent[mn]) : joined(plane);
  }
};

#if defined(LEFT_MN_MAJOR)
typedef PlaneOperand<false> LeftPlanes;
#else
typedef PlaneOperand<true> LeftPlanes;
#endif
#if defined(RIGHT_MN_MAJOR)
typedef PlaneOperand<false> RightPlanes;
#else
typedef PlaneOperand<true> RightPlanes;
#endif

// Σ_k left(row, k) right(column, k) by FFMA.
template <typename Left, typename Right>
__device__ __forceinline__ float ffma_sum(const Left& left, const Right& right, Offset row,
                                          Offset column, Offset first, Offset last) {
  float sum = 0;
#pragma unroll 1
  for (Offset k = first; k < last && sum == sum; ++k)  // a NaN stays a NaN
    sum = multiply_add(left.value(row, k), right.value(column, k), sum);
  return sum;
}

// A sum of products of planes, rescaled to the values that the planes stand for.
template <typename Left, typename Right>
__device__ __forceinline__ float rescaled(const Left& left, const Right& right, Offset row,
                                          Offset column, float sum) {
  return WITH_EXPONENTS ? ldexpf(sum, -left.exponent[row] - right.exponent[column])
                        : sum * (UNSHIFT * UNSHIFT);
}

// Reads four adjacent sums of a row in shared memory and rescales those of columns < N. A
// non-finite sum is computed again by FFMA, which gives what IEEE arithmetic gives. That loop is
// not unrolled: this rare case would be half of the kernel's code.
template <typename Left, typename Right>
__device__ __forceinline__ Pack<float, 4> rescaled_pack(const Left& left, const Right& right,
                                                        Offset row, Offset column, Offset N,
                                                        Offset first, Offset last, float* sums) {
  auto pack = *reinterpret_cast<const Pack<float, 4>*>(sums);
  bool finite = true;
#pragma unroll
  for (int e = 0; e < 4; ++e) finite = finite && is_finite(pack.v[e]);
  if (finite) {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (column + e < N) pack.v[e] = rescaled(left, right, row, column + e, pack.v[e]);
    return pack;
  }
#pragma unroll 1
  for (int e = 0; e < 4 && column + e < N; ++e)
    sums[e] = is_finite(sums[e]) ? rescaled(left, right, row, column + e, sums[e])
                                 : ffma_sum(left, right, row, column + e, first, last);
  return *reinterpret_cast<const Pack<float, 4>*>(sums);
}
