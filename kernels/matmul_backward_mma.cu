// matmul_backward_mma: C = A B on the tensor cores, from the 16-bit planes of A and B, which is
// dx = dz wᵀ or dw = xᵀ dz.
//
// shapes    a: (planes, M, pitch) of A (M, K), with LEFT_MN_MAJOR (planes, K, pitch); b: (planes,
//           N, pitch) of B (K, N), with RIGHT_MN_MAJOR (planes, K, pitch); strides of planes and
//           rows in elements; their exponents: (M,) and (N,); C: (M, N), any strides; partial:
//           (splits, M, N)
//           dx: A = dz, B = wᵀ, M = n, N = k, K = m;  dw: A = xᵀ, B = dz, M = k, N = m, K = n
// launch    grid (⌈M / BLOCK_M⌉ ⌈N / BLOCK_N⌉, splits), block (THREADS)
// shared    STAGES × PLANES × BLOCK_K × (BLOCK_M + BLOCK_N) × 2 bytes, dynamic
// requires  compute capability 8.0; rows of planes 16-byte aligned; split_length a multiple of 16;
//           partial where splits > 1, 16-byte aligned; see Target for packed
// traffic   2 M N K flops for each pair of planes, of which there are 1, 3 and 6 for PLANES 1, 2
//           and 3; planes of A are read once for every BLOCK_N of N, of B once for every BLOCK_M of
//           M
// order     see gemm_mma.cuh; then reduce_splits
#include "gemm_mma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
matmul_backward_mma(const Plane* __restrict__ a, Offset a_row, Offset a_plane,
                    const int* __restrict__ a_exponent, const Plane* __restrict__ b, Offset b_row,
                    Offset b_plane, const int* __restrict__ b_exponent, Result* c, Offset c_m,
                    Offset c_n, Accumulator* partial, int c_packed, int accumulate,
                    Offset M, Offset N, Offset K, Offset split_length) {
  gemm_mma(LeftPlanes{a, a_row, a_plane, a_exponent}, RightPlanes{b, b_row, b_plane, b_exponent},
           Target<Result>{c, c_m, c_n, partial, c_packed, accumulate}, M, N,
           K, split_length, Identity{});
}
