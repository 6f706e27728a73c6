// dense_sigmoid_backward_dx_ffma: dx = dz wᵀ, where dz = dy y (1 − y), or dy σ(z) σ(−z) where
// FROM_LOGITS is defined, is computed as its tiles are loaded and is never in global memory.
//
// shapes    dy, saved (y or z): (n, m), w: (k, m), dx: (n, k), any strides, in elements;
//           M = n, N = k, K = m
// launch    grid (⌈n / BLOCK_M⌉ ⌈k / BLOCK_N⌉, 1), block (THREADS)
// shared    2 × STAGES × BLOCK_K × (BLOCK_N + 4) accumulators, static
// requires  as matmul_backward_ffma; dy and saved share k_major and packed
// traffic   2 n k m flops; dz is computed once for every BLOCK_N of k
// order     dz in the accumulator's dtype, then as matmul_backward_ffma
#include "gradient_operand.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_backward_dx_ffma(const Element* __restrict__ dy, Offset dy_n, Offset dy_m,
                               const Element* __restrict__ saved, Offset saved_n, Offset saved_m,
                               int dz_k_major, int dz_packed, const Element* __restrict__ w,
                               Offset w_k, Offset w_m, int w_k_major, int w_packed, Element* dx,
                               Offset dx_n, Offset dx_k, int dx_packed, int accumulate, Offset n,
                               Offset k, Offset m) {
  const GradientOperand dz{{dy, dy_n, dy_m, dz_k_major, dz_packed},
                           {saved, saved_n, saved_m, dz_k_major, dz_packed},
                           dz_k_major};
  gemm_ffma(dz, Operand{w, w_k, w_m, w_k_major, w_packed},
            Target<Element>{dx, dx_n, dx_k, nullptr, dx_packed, accumulate}, n, k, m, m,
            Identity{});
}
