// Planes: the bf16 or fp16 terms that a float32 is split into for tensor cores, as in 3xTF32 and
// BF16x9.
//
//     value = (plane_0 + plane_1 2^-STEP + plane_2 2^-2STEP) 2^-SHIFT 2^-exponent
//
//   float32, PLANES=3   bfloat16, STEP 0, SHIFT 16: every float32 below 2^111 exactly, subnormal
//                       ones included; there is no exponent. Of all others plane_0 is an infinity
//                       and plane_1 and plane_2 are the halves of the bits.
//   float32, PLANES=2   float16, STEP 11, and for each index of M or N an exponent that scales its
//                       largest magnitude to [2^13, 2^14): 22 bits, down to 2^-27 of the largest.
//                       An infinity or a NaN is plane_0 alone. A number too small for both planes
//                       is 2^-24 in the last: times an infinity it must not be a zero.
//   float32, PLANES=1   float16 with the same exponents: 11 bits
//   float16, bfloat16   the element itself is the only plane
//
// Each plane is the rounded residual of the planes before it, in float16 times 2^STEP for each of
// them, so that all use the same range of the format; bfloat16 has the range of float32. Without
// SHIFT, planes of subnormal numbers would have fewer bits than others, and the products that are
// left out would matter.
#pragma once
#include "element.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr int PLANE_COUNT = PLANES;

#if defined(ELEMENT_F32) && PLANES == 3
typedef __nv_bfloat16 Plane;
#define PLANES_BF16 1
constexpr bool WITH_EXPONENTS = false;
constexpr int STEP = 0;
constexpr int SHIFT = 16;
#elif defined(ELEMENT_F32) && (PLANES == 2 || PLANES == 1)
typedef __half Plane;
constexpr bool WITH_EXPONENTS = true;
constexpr int STEP = 11;
constexpr int SHIFT = 0;
#elif (defined(ELEMENT_F16) || defined(ELEMENT_BF16)) && PLANES == 1
typedef Element Plane;
#if defined(ELEMENT_BF16)
#define PLANES_BF16 1
#endif
constexpr bool WITH_EXPONENTS = false;
constexpr int STEP = 0;
constexpr int SHIFT = 0;
#else
#error "planes are 1, 2 or 3 of float32, or the 16-bit element itself"
#endif

constexpr float WEIGHT = 1.0f / (1 << STEP);  // of a plane relative to the one before it
static_assert(PLANE_COUNT < 3 || STEP == 0, "products of all planes but the first are one sum");
constexpr float UNSHIFT = 1.0f / (1 << SHIFT);

__device__ __forceinline__ float plane_value(__half x) { return __half2float(x); }
__device__ __forceinline__ float plane_value(__nv_bfloat16 x) { return __bfloat162float(x); }

// The value that planes stand for, up to its exponent.
__device__ __forceinline__ float joined(const Plane (&plane)[PLANE_COUNT]) {
  float sum = 0;
#pragma unroll
  for (int p = PLANE_COUNT - 1; p >= 0; --p) sum = sum * WEIGHT + plane_value(plane[p]);
#if PLANES == 3
  if (!is_finite(plane_value(plane[0])))
    return __uint_as_float(unsigned(__bfloat16_as_ushort(plane[1])) << 16 |
                           __bfloat16_as_ushort(plane[2]));
#endif
  return sum * UNSHIFT;
}

#if defined(ELEMENT_F32)
#if defined(PLANES_BF16)
__device__ __forceinline__ Plane to_plane(float x) { return __float2bfloat16_rn(x); }
#else
__device__ __forceinline__ Plane to_plane(float x) { return __float2half_rn(x); }
#endif

// Splits a value that is already scaled by its exponent.
__device__ __forceinline__ void split(float value, Plane (&plane)[PLANE_COUNT]) {
  float rest = value * (1 << SHIFT);
#pragma unroll
  for (int p = 0; p < PLANE_COUNT; ++p) {
    plane[p] = to_plane(rest);
    const float left = (rest - plane_value(plane[p])) * (1 << STEP);
    rest = PLANE_COUNT == 3 || is_finite(rest) ? left : 0;  // three planes: see below
  }
#if PLANES == 3
  if (!(fabsf(value) < 0x1p111f)) {
    const unsigned bits = __float_as_uint(value);
    plane[0] = __ushort_as_bfloat16(0x7f80);
    plane[1] = __ushort_as_bfloat16(static_cast<unsigned short>(bits >> 16));
    plane[2] = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
  }
#else
  if (joined(plane) == 0 && value != 0)
    plane[PLANE_COUNT - 1] = __ushort_as_half(value < 0 ? 0x8001 : 0x0001);
#endif
}
#else
// Rounds a value to the only plane.
__device__ __forceinline__ void split(float value, Plane (&plane)[PLANE_COUNT]) {
  plane[0] = Narrow<Plane>::from(value);
}
#endif

// Splits N values into a pack for each plane.
template <int N>
__device__ __forceinline__ void split_packs(const float (&value)[N],
                                            Pack<Plane, N> (&packs)[PLANE_COUNT]) {
#pragma unroll
  for (int e = 0; e < N; ++e) {
    Plane plane[PLANE_COUNT];
    split(value[e], plane);
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p) packs[p].v[e] = plane[p];
  }
}
