// The gradient at a sigmoid's input as an operand of a product: computed as its tiles are loaded.
#pragma once
#include "gemm_ffma.cuh"
#include "sigmoid.cuh"

// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined: two matrices read together.
struct GradientOperand {
  Operand dy, saved;
  int along;

  __device__ __forceinline__ void load(Offset outer, Offset q, Offset outer_end, Offset q_end,
                                       Accumulator (&value)[4]) const {
    Accumulator s[4];
    dy.load(outer, q, outer_end, q_end, value);
    saved.load(outer, q, outer_end, q_end, s);
#pragma unroll
    for (int e = 0; e < 4; ++e) value[e] = sigmoid_gradient(value[e], s[e]);
  }
};
