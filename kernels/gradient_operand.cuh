// dz as an operand of a GEMM: computed as its tiles are loaded.
#pragma once
#include "gemm_ffma.cuh"
#include "sigmoid.cuh"

// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined, from two matrices.
struct GradientOperand {
  Operand dy, saved;
  int k_major;

  __device__ __forceinline__ void load(Offset mn, Offset k, Offset mn_end, Offset k_end,
                                       Accumulator (&value)[4]) const {
    Accumulator s[4];
    dy.load(mn, k, mn_end, k_end, value);
    saved.load(mn, k, mn_end, k_end, s);
#pragma unroll
    for (int e = 0; e < 4; ++e) value[e] = sigmoid_gradient(value[e], s[e]);
  }
};
