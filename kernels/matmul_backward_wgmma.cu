// matmul_backward_wgmma: C = A B on Hopper's tensor cores, from the 16-bit planes of A and B, which
// is dx = dz wᵀ or dw = xᵀ dz.
//
// shapes    as matmul_backward_mma; a_map, b_map: tensor maps of the planes as (planes, rows,
//           columns), whose boxes are a CTA's slice of a plane's tile: see gemm_wgmma.cuh
// launch    grid (whole clusters of CLUSTER CTAs, at most as many as cover C in every split), block
//           (THREADS)
// shared    STAGES × (PLANES × BLOCK_K × (BLOCK_M + BLOCK_N) × 2 + 16) + BLOCK_M × (EPILOGUE_N +
//           PADDING)
//           × 4 bytes, dynamic
// requires  compute capability 9.0 (sm_90a); rows of planes 16-byte aligned; split_length a
//           multiple of 64; extents up to 2^31 − 2^10; partial where splits > 1, 16-byte aligned;
//           see Target for packed
// traffic   2 M N K flops for each pair of planes, of which there are 1, 3 and 6 for PLANES 1, 2
//           and 3; planes of A are read once for every CLUSTER_N BLOCK_N of N, of B once for every
//           CLUSTER_M BLOCK_M of M
// order     see gemm_wgmma.cuh; then reduce_splits
#include "gemm_wgmma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER, 1, 1)
matmul_backward_wgmma(const __grid_constant__ TensorMap a_map,
                      const __grid_constant__ TensorMap b_map, const Plane* __restrict__ a,
                      Offset a_row, Offset a_plane, const int* __restrict__ a_exponent,
                      const Plane* __restrict__ b, Offset b_row, Offset b_plane,
                      const int* __restrict__ b_exponent, Result* c, Offset c_m, Offset c_n,
                      Accumulator* partial, int c_packed, int accumulate, Offset M,
                      Offset N, Offset K, Offset split_length, Offset splits) {
  gemm_wgmma(a_map, b_map, LeftPlanes{a, a_row, a_plane, a_exponent},
             RightPlanes{b, b_row, b_plane, b_exponent},
             Target<Result>{c, c_m, c_n, partial, c_packed, accumulate}, M, N,
             K, split_length, splits, Identity{});
}
