// matmul_backward_ffma: C = A B, which with the right strides is dx = dy wᵀ or dw = xᵀ dy.
//
// shapes    A: (M, K), B: (K, N), C: (M, N), any strides, in elements; partial: (splits, M, N)
//           dx: A = dy, B = wᵀ, M = n, N = k, K = m;  dw: A = xᵀ, B = dy, M = k, N = m, K = n
// launch    grid (⌈M / BLOCK_M⌉ ⌈N / BLOCK_N⌉, splits), block (THREADS)
// shared    2 × STAGES × BLOCK_K × (BLOCK_N + 4) accumulators, static
// requires  split_length a multiple of 16; partial where splits > 1, 16-byte aligned;
//           see Operand and Target for k_major and packed
// traffic   2 M N K flops; A is read once for every BLOCK_N of N, B once for every BLOCK_M of M
// order     one chain of fused multiply-adds over K, ascending; then reduce_splits
#include "gemm_ffma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_ffma(const Element* __restrict__ a, Offset a_m, Offset a_k, int a_k_major,
                     int a_packed, const Element* __restrict__ b, Offset b_n,
                     Offset b_k, int b_k_major, int b_packed, Result* c, Offset c_m,
                     Offset c_n, Accumulator* partial, int c_packed, int accumulate,
                     Offset M, Offset N, Offset K, Offset split_length) {
  gemm_ffma(Operand{a, a_m, a_k, a_k_major, a_packed},
            Operand{b, b_n, b_k, b_k_major, b_packed},
            Target<Result>{c, c_m, c_n, partial, c_packed, accumulate}, M, N, K, split_length,
            Identity{});
}
