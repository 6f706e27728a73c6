// dense_sigmoid_backward_ffma: dx = dz wᵀ and dw = xᵀ dz, where dz = dy y (1 − y), or dy σ(z) σ(−z)
// where FROM_LOGITS is defined, is computed as its tiles are loaded and is never in global memory.
//
// shapes    dy, saved (y or z): (n, m), x: (n, k), w: (k, m), dx: (n, k), dw: (k, m), any strides,
//           in elements; partial: (splits, k, m)
// launch    dx: grid (⌈n / TILE⌉ ⌈k / TILE⌉, 1); dw: grid (⌈k / TILE⌉ ⌈m / TILE⌉, splits);
//           block (256)
// shared    4 × 16 × (TILE + 4) accumulators, static
// requires  as matmul_backward_ffma; along and packed of dy and saved are one
// traffic   2 n k m flops each; dz is computed once for every TILE of k
// order     dz in the accumulator's dtype, then as matmul_backward_ffma
#include "gemm_ffma.cuh"
#include "sigmoid.cuh"

// dz as an operand: two matrices read together.
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

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_A_SM)
dense_sigmoid_backward_dx(const Element* __restrict__ dy, Offset dy_n, Offset dy_m,
                          const Element* __restrict__ saved, Offset saved_n, Offset saved_m,
                          int dz_along, int dz_packed, const Element* __restrict__ w, Offset w_k,
                          Offset w_m, int w_along, int w_packed, Element* dx, Offset dx_n,
                          Offset dx_k, int dx_packed, int accumulate, Offset n, Offset k,
                          Offset m) {
  const GradientOperand dz{{dy, dy_n, dy_m, dz_along, dz_packed},
                           {saved, saved_n, saved_m, dz_along, dz_packed},
                           dz_along};
  gemm_ffma(dz, Operand{w, w_k, w_m, w_along, w_packed},
            Target<Element>{dx, dx_n, dx_k, nullptr, dx_packed, accumulate}, n, k,
            m, m, Same{});
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_A_SM)
dense_sigmoid_backward_dw(const Element* __restrict__ x, Offset x_n, Offset x_k, int x_along,
                          int x_packed, const Element* __restrict__ dy, Offset dy_n, Offset dy_m,
                          const Element* __restrict__ saved, Offset saved_n, Offset saved_m,
                          int dz_along, int dz_packed, Result* dw, Offset dw_k, Offset dw_m,
                          Accumulator* partial, int dw_packed, int accumulate, Offset n, Offset k,
                          Offset m, Offset split_length) {
  const GradientOperand dz{{dy, dy_m, dy_n, dz_along, dz_packed},
                           {saved, saved_m, saved_n, dz_along, dz_packed},
                           dz_along};
  gemm_ffma(Operand{x, x_k, x_n, x_along, x_packed}, dz,
            Target<Result>{dw, dw_k, dw_m, partial, dw_packed, accumulate}, k, m, n, split_length,
            Same{});
}
