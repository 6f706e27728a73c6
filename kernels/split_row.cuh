// Splits float32 values of a row into planes, scaled by the exponent of the row or the column.
//
// In memory, planes are (PLANES, rows, columns) with a pitch of rows that is a multiple of 8: every
// row of every plane is 16-byte aligned. Elements beyond a row's columns are neither read nor
// written.
#pragma once
#include "matrix.cuh"
#include "planes.cuh"

// value 2^exponent with an exponent in [-114, 162], by two factors that are normal numbers. A
// product that underflows is too small for a plane but must not become zero; and one plane must not
// round a finite number to 2^128.
__device__ __forceinline__ float scaled(float value, int exponent) {
  const float largest = 0x1.ffcp127f;  // of 11 bits
  if (PLANE_COUNT == 1 && is_finite(value)) value = fminf(fmaxf(value, -largest), largest);
  const int first = exponent / 2;
  const int second = exponent - first;
  const float product = value * __uint_as_float(unsigned(first + 127) << 23) *
                        __uint_as_float(unsigned(second + 127) << 23);
  return product != 0 || value == 0 ? product : copysignf(0x1p-149f, value);
}

// Splits one value and writes it to every plane.
__device__ __forceinline__ void split_one(Plane* to, Offset plane_stride, float value) {
  Plane plane[PLANE_COUNT];
  split(value, plane);
#pragma unroll
  for (int p = 0; p < PLANE_COUNT; ++p) to[p * plane_stride] = plane[p];
}

// Splits N adjacent values and writes them to every plane, aligned for Pack<Plane, N>.
template <int N>
__device__ __forceinline__ void split_pack(Plane* to, Offset plane_stride,
                                           const float (&value)[N]) {
  Pack<Plane, N> packs[PLANE_COUNT];
  split_packs(value, packs);
#pragma unroll
  for (int p = 0; p < PLANE_COUNT; ++p) write_pack(to + p * plane_stride, packs[p]);
}
