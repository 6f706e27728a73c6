// dense_sigmoid_wgmma: y = σ(x w + b) on Hopper's tensor cores, from the 16-bit planes of x and w.
//
// shapes    as dense_sigmoid_mma; x_map, w_map: tensor maps as of matmul_backward_wgmma
// launch    grid (whole clusters of CLUSTER CTAs, at most as many as cover y), block (THREADS)
// shared    STAGES × (PLANES × BLOCK_K × (BLOCK_M + BLOCK_N) × 2 + 16) + BLOCK_M × (EPILOGUE_N +
//           PADDING)
//           × 4 bytes, dynamic
// requires  as matmul_backward_wgmma
// traffic   2 n k m flops for each pair of planes, as matmul_backward_wgmma
// order     see gemm_wgmma.cuh; then bias, sigmoid and one rounding
#include "bias_sigmoid.cuh"
#include "gemm_wgmma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1) __cluster_dims__(CLUSTER, 1, 1)
dense_sigmoid_wgmma(const __grid_constant__ TensorMap x_map,
                    const __grid_constant__ TensorMap w_map, const Plane* __restrict__ x,
                    Offset x_row, Offset x_plane, const int* __restrict__ x_exponent,
                    const Plane* __restrict__ w, Offset w_row, Offset w_plane,
                    const int* __restrict__ w_exponent, const Element* __restrict__ b,
                    Offset b_stride, Element* y, Offset y_n, Offset y_m, int y_packed, Offset n,
                    Offset m, Offset k) {
  gemm_wgmma(x_map, w_map, LeftPlanes{x, x_row, x_plane, x_exponent},
             RightPlanes{w, w_row, w_plane, w_exponent},
             Target<Element>{y, y_n, y_m, nullptr, y_packed, 0}, n, m, k, k > 0 ? k : 1, 1,
             BiasSigmoid{b, b_stride, m});
}
