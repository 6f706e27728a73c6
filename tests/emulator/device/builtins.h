// CUDA's keywords, built-in variables and block-wide calls for a kernel that g++ compiles.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>

#include "runtime_calls.h"

#undef __align__
#undef __constant__
#undef __device__
#undef __forceinline__
#undef __global__
#undef __grid_constant__
#undef __launch_bounds__
#undef __noinline__
#undef __shared__

// thread_local is legal both for a static of a block scope and after `extern`, as __shared__ is.
#define __shared__ thread_local
#define __global__
#define __device__
#define __constant__ static
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

#define EMULATOR_UNCHECKED __attribute__((noinline, no_sanitize("thread", "undefined")))

// The runtime rewrites these at every switch of fibers; for one fiber they are constants.
extern "C" EMULATOR_HIDDEN const uint3 threadIdx;
extern "C" EMULATOR_HIDDEN const uint3 blockIdx;
extern "C" EMULATOR_HIDDEN const dim3 blockDim;
extern "C" EMULATOR_HIDDEN const dim3 gridDim;
constexpr int warpSize = 32;

static inline void __syncthreads(emulator::Site site = emulator::Site::here()) {
  emulator::barrier(0, emulator::ALL_THREADS, true, site);
}
static inline int __syncthreads_count(int predicate,
                                      emulator::Site site = emulator::Site::here()) {
  return emulator::barrier_count(predicate, site);
}
static inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::barrier_count(predicate, site) != 0;
}
static inline int __syncthreads_and(int predicate, emulator::Site site = emulator::Site::here()) {
  return emulator::barrier_count(!predicate, site) == 0;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __nanosleep(unsigned) { emulator::yield(); }

[[noreturn]] static inline void __trap(emulator::Site site = emulator::Site::here()) {
  emulator::fail_at(site, "__trap() was called");
}
#define assert(condition)                                                                    \
  ((condition) ? void(0)                                                                     \
               : emulator::fail_at(emulator::Site::here(), "assertion failed: " #condition))
