// matmul_backward_mma: C = A B on the tensor cores, from the 16-bit planes of A and B, which is
// dx = dz wᵀ or dw = xᵀ dz.
//
// shapes    a: (planes, rows, pitch) of A (rows, contraction), with LEFT_ACROSS (planes,
//           contraction, pitch); b: (planes, columns, pitch) of B (contraction, columns), with
//           RIGHT_ACROSS (planes, contraction, pitch); strides of planes and rows in elements;
//           their exponents: (rows,) and (columns,); C: (rows, columns), any strides; partial:
//           (splits, rows, columns)
// launch    grid (⌈rows / BLOCK_M⌉ ⌈columns / BLOCK_N⌉, splits), block (THREADS)
// shared    STAGES × PLANES × BLOCK_K × (BLOCK_M + BLOCK_N) × 2 bytes, dynamic
// requires  compute capability 8.0; rows of planes 16-byte aligned; split_length a multiple of 16;
//           partial where splits > 1, 16-byte aligned; see Target for packed
// traffic   2 · rows · columns · contraction flops for each pair of planes, of which there are 1, 3
//           and 6 for PLANES 1, 2 and 3; each operand's planes are read once for every block of the
//           other's extent
// order     see gemm_mma.cuh; then reduce_splits
#include "gemm_mma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_mma(const Plane* __restrict__ a, Offset a_row, Offset a_plane,
                    const int* __restrict__ a_exponent, const Plane* __restrict__ b, Offset b_row,
                    Offset b_plane, const int* __restrict__ b_exponent, Result* c, Offset c_row,
                    Offset c_column, Accumulator* partial, int c_packed, int accumulate,
                    Offset rows, Offset columns, Offset contraction, Offset split_length) {
  gemm_mma(LeftPlanes{a, a_row, a_plane, a_exponent}, RightPlanes{b, b_row, b_plane, b_exponent},
           Target<Result>{c, c_row, c_column, partial, c_packed, accumulate}, rows, columns,
           contraction, split_length, Same{});
}
