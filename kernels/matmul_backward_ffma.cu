// matmul_backward_ffma: C = A B, which with the right strides is dx = dy wᵀ or dw = xᵀ dy.
//
// shapes    A: (rows, contraction), B: (contraction, columns), C: (rows, columns), any strides, in
//           elements; partial: (splits, rows, columns)
//           dx: A = dy (n, m), B = wᵀ (m, k);  dw: A = xᵀ (k, n), B = dy (n, m)
// launch    grid (⌈rows / BLOCK_M⌉ ⌈columns / BLOCK_N⌉, splits), block (THREADS)
// shared    2 × STAGES × BLOCK_K × (BLOCK_N + 4) accumulators, static
// requires  split_length a multiple of 16; partial where splits > 1, 16-byte aligned;
//           see Operand and Target for along and packed
// traffic   2 · rows · columns · contraction flops; each operand is read once for every block of
//           the other's extent
// order     one chain of multiply-adds over the contraction, ascending; then reduce_splits
#include "gemm_ffma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_ffma(const Element* __restrict__ a, Offset a_row, Offset a_contraction, int a_along,
                     int a_packed, const Element* __restrict__ b, Offset b_column,
                     Offset b_contraction, int b_along, int b_packed, Result* c, Offset c_row,
                     Offset c_column, Accumulator* partial, int c_packed, int accumulate,
                     Offset rows, Offset columns, Offset contraction, Offset split_length) {
  gemm_ffma(Operand{a, a_row, a_contraction, a_along, a_packed},
            Operand{b, b_column, b_contraction, b_along, b_packed},
            Target<Result>{c, c_row, c_column, partial, c_packed, accumulate}, rows, columns, contraction,
            split_length, Same{});
}
