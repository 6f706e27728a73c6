// The epilogue of a dense layer: bias, sigmoid.
#pragma once
#include "matrix.cuh"
#include "sigmoid.cuh"

// σ(value + b) of four adjacent columns; no bias where b is null.
struct BiasSigmoid {
  const Element* b;
  Offset stride, columns;

  __device__ __forceinline__ void operator()(Offset column, Accumulator (&value)[4]) const {
    Accumulator bias[4] = {};
    if (b != nullptr) load_row(b, stride, column, columns, false, bias);
#pragma unroll
    for (int e = 0; e < 4; ++e) value[e] = logistic(value[e] + bias[e]);
  }
};
