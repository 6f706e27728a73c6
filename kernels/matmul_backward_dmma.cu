// matmul_backward_dmma: C = A B on the FP64 tensor cores, which with the right strides is
// dx = dy wᵀ or dw = xᵀ dy.
//
// shapes    A: (rows, contraction), B: (contraction, columns), C: (rows, columns), any strides, in
//           elements; partial: (splits, rows, columns)
//           dx: A = dy (n, m), B = wᵀ (m, k);  dw: A = xᵀ (k, n), B = dy (n, m)
// launch    grid (⌈rows / BLOCK_M⌉ ⌈columns / BLOCK_N⌉, splits), block (THREADS)
// shared    STAGES × (BLOCK_M + BLOCK_N) × (BLOCK_K + PADDING) × 8 bytes, dynamic
// requires  compute capability 8.0; float64; split_length a multiple of 16; partial where
//           splits > 1, 16-byte aligned; see Operand and Target for packed
// traffic   2 · rows · columns · contraction flops; each operand is read once for every block of
//           the other's extent
// order     one sum over the contraction, ascending, of multiply-adds on the tensor cores; then
//           reduce_splits
#include "gemm_dmma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_dmma(const Element* __restrict__ a, Offset a_row, Offset a_contraction,
                     int a_packed, const Element* __restrict__ b, Offset b_column,
                     Offset b_contraction, int b_packed, Element* c, Offset c_row, Offset c_column,
                     Accumulator* partial, int c_packed, int accumulate, Offset rows,
                     Offset columns, Offset contraction, Offset split_length) {
  gemm_dmma(Left{a, a_row, a_contraction, a_packed}, Right{b, b_column, b_contraction, b_packed},
            Target<Element>{c, c_row, c_column, partial, c_packed, accumulate}, rows, columns,
            contraction, split_length, Same{});
}
