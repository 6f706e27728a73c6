// dense_sigmoid_backward_dw_ffma: dw = xᵀ dz, with dz as in dense_sigmoid_backward_dx_ffma.
//
// shapes    x: (n, k), dy, saved (y or z): (n, m), dw: (k, m), any strides, in elements;
//           partial: (splits, k, m); M = k, N = m, K = n
// launch    grid (⌈k / BLOCK_M⌉ ⌈m / BLOCK_N⌉, splits), block (THREADS)
// shared    2 × STAGES × BLOCK_K × (BLOCK_N + 4) accumulators, static
// requires  as matmul_backward_ffma; dy and saved share k_major and packed
// traffic   2 n k m flops; dz is computed once for every BLOCK_M of k
// order     dz in the accumulator's dtype, then as matmul_backward_ffma
#include "gradient_operand.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_backward_dw_ffma(const Element* __restrict__ x, Offset x_n, Offset x_k, int x_k_major,
                               int x_packed, const Element* __restrict__ dy, Offset dy_n,
                               Offset dy_m, const Element* __restrict__ saved, Offset saved_n,
                               Offset saved_m, int dz_k_major, int dz_packed, Result* dw,
                               Offset dw_k, Offset dw_m, Accumulator* partial, int dw_packed,
                               int accumulate, Offset n, Offset k, Offset m, Offset split_length) {
  const GradientOperand dz{{dy, dy_m, dy_n, dz_k_major, dz_packed},
                           {saved, saved_m, saved_n, dz_k_major, dz_packed},
                           dz_k_major};
  gemm_ffma(Operand{x, x_k, x_n, x_k_major, x_packed}, dz,
            Target<Result>{dw, dw_k, dw_m, partial, dw_packed, accumulate}, k, m, n, split_length,
            Identity{});
}
