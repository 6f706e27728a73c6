// The logistic function and its gradient, in the accumulator's dtype.
//
// The forward pass saves the logits z if FROM_LOGITS is defined, else y = σ(z).
#pragma once
#include "element.cuh"

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float magnitude(float x) { return fabsf(x); }
__device__ __forceinline__ double magnitude(double x) { return fabs(x); }

// σ(z) = 1/(1 + e) for z ≥ 0 and e/(1 + e) for z < 0 with e = exp(−|z|), which never overflows.
__device__ __forceinline__ Accumulator logistic(Accumulator z) {
  const Accumulator one = 1;
  const Accumulator e = exponential(-magnitude(z));
  return (z >= 0 ? one : e) / (one + e);
}

// dz = dy σ(z) σ(−z) from the logits, dz = dy y (1 − y) from y.
__device__ __forceinline__ Accumulator sigmoid_gradient(Accumulator dy, Accumulator saved) {
  const Accumulator one = 1;
#if defined(FROM_LOGITS)
  const Accumulator e = exponential(-magnitude(saved));
  return dy * (e / ((one + e) * (one + e)));
#else
  return dy * (saved * (one - saved));
#endif
}
