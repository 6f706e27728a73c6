// Element and accumulator types, and aligned packs of elements for vectorized access.
//
// A kernel file is compiled once for each instantiation, chosen by macros:
//   ELEMENT_F32 | ELEMENT_F64 | ELEMENT_F16 | ELEMENT_BF16   the dtype of the inputs
//   RESULT_F32                                               float32 results of 16-bit inputs
// and by the configuration of its family in gpugrad/planning/configurations.py: THREADS of a block,
// and the other fields in capitals. No file defines a default of these.
#pragma once

typedef long long Offset;  // of an element, in elements: products of extents exceed 32 bits

#if defined(ELEMENT_F32)
typedef float Element;
typedef float Accumulator;
#elif defined(ELEMENT_F64)
typedef double Element;
typedef double Accumulator;
#elif defined(ELEMENT_F16)
#include <cuda_fp16.h>
typedef __half Element;
typedef float Accumulator;
#elif defined(ELEMENT_BF16)
#include <cuda_bf16.h>
typedef __nv_bfloat16 Element;
typedef float Accumulator;
#else
#error "one of ELEMENT_F32, ELEMENT_F64, ELEMENT_F16 and ELEMENT_BF16 must be defined"
#endif

#if defined(RESULT_F32)
typedef float Result;
#else
typedef Element Result;
#endif

constexpr int VECTOR = 16 / int(sizeof(Element));  // elements in one 16-byte access

// N elements of a vectorized access; more than 16 bytes take several 16-byte accesses.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T v[N];
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
#if defined(ELEMENT_F16)
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
#elif defined(ELEMENT_BF16)
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
#endif

// Rounds to nearest, once.
template <typename T> struct Narrow {
  static __device__ __forceinline__ T from(Accumulator x) { return x; }
};
#if defined(ELEMENT_F16)
template <> struct Narrow<__half> {
  static __device__ __forceinline__ __half from(float x) { return __float2half_rn(x); }
};
#elif defined(ELEMENT_BF16)
template <> struct Narrow<__nv_bfloat16> {
  static __device__ __forceinline__ __nv_bfloat16 from(float x) { return __float2bfloat16_rn(x); }
};
#endif

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}

__device__ __forceinline__ bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}
