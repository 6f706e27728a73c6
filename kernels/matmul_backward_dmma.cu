// matmul_backward_dmma: C = A B on the FP64 tensor cores, which with the right strides is
// dx = dy wᵀ or dw = xᵀ dy.
//
// shapes    A: (M, K), B: (K, N), C: (M, N), any strides, in elements; partial: (splits, M, N)
//           dx: A = dy, B = wᵀ, M = n, N = k, K = m;  dw: A = xᵀ, B = dy, M = k, N = m, K = n
// launch    grid (⌈M / BLOCK_M⌉ ⌈N / BLOCK_N⌉, splits), block (THREADS)
// shared    STAGES × (BLOCK_M + BLOCK_N) × (BLOCK_K + PADDING) × 8 bytes, dynamic
// requires  compute capability 8.0; float64; split_length a multiple of 16; partial where
//           splits > 1, 16-byte aligned; see Operand and Target for packed
// traffic   2 M N K flops; A is read once for every BLOCK_N of N, B once for every BLOCK_M of M
// order     one sum over K, ascending, of fused multiply-adds on the tensor cores; then
//           reduce_splits
#include "gemm_dmma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_dmma(const Element* __restrict__ a, Offset a_m, Offset a_k,
                     int a_packed, const Element* __restrict__ b, Offset b_n,
                     Offset b_k, int b_packed, Element* c, Offset c_m, Offset c_n,
                     Accumulator* partial, int c_packed, int accumulate, Offset M,
                     Offset N, Offset K, Offset split_length) {
  gemm_dmma(Left{a, a_m, a_k, a_packed}, Right{b, b_n, b_k, b_packed},
            Target<Element>{c, c_m, c_n, partial, c_packed, accumulate}, M, N,
            K, split_length, Identity{});
}
