// Loads with cache hints, bit casts, integer and floating-point intrinsics.
#pragma once
#include <math.h>

#include <cstring>
#include <type_traits>

#include "builtins.h"

template <class T>
static inline T __ldg(const T* address) {
  return *address;
}
template <class T>
static inline T __ldcs(const T* address) {
  return *address;
}
template <class T>
static inline T __ldcg(const T* address) {
  return *address;
}
template <class T>
static inline T __ldlu(const T* address) {
  return *address;
}
template <class T>
static inline void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
static inline void __stcg(T* address, T value) {
  *address = value;
}
template <class T>
static inline void __stwb(T* address, T value) {
  *address = value;
}
template <class T>
static inline void __stwt(T* address, T value) {
  *address = value;
}

namespace emulator {
template <class To, class From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace emulator

static inline int __float_as_int(float x) { return emulator::bit_cast<int>(x); }
static inline unsigned __float_as_uint(float x) { return emulator::bit_cast<unsigned>(x); }
static inline float __int_as_float(int x) { return emulator::bit_cast<float>(x); }
static inline float __uint_as_float(unsigned x) { return emulator::bit_cast<float>(x); }
static inline long long __double_as_longlong(double x) {
  return emulator::bit_cast<long long>(x);
}
static inline double __longlong_as_double(long long x) { return emulator::bit_cast<double>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned(uint64_t(a) * b >> 32);
}
static inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }

// Rounded to nearest, as on the device. The last argument of fmaf is never rounded apart.
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double a) { return 1.0 / a; }

// Approximations on the device; here the exact functions (a macro where glibc has the name).
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)

template <class A, class B>
static inline std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <class A, class B>
static inline std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
