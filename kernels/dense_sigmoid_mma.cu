// dense_sigmoid_mma: y = σ(x w + b) on the tensor cores, from the 16-bit planes of x and w.
//
// shapes    M = n, N = m, K = k; x: (planes, n, pitch), with LEFT_MN_MAJOR of its transpose
//           (planes, k, pitch); w: of its transpose (planes, m, pitch), with RIGHT_MN_MAJOR
//           (planes, k, pitch); strides of planes and rows in elements; their exponents: (n,) and
//           (m,); b: (m,), any stride, or null; y: (n, m), any strides
// launch    grid (⌈n / BLOCK_M⌉ ⌈m / BLOCK_N⌉, 1), block (THREADS)
// shared    STAGES × PLANES × BLOCK_K × (BLOCK_M + BLOCK_N) × 2 bytes, dynamic
// requires  as matmul_backward_mma
// traffic   2 n k m flops for each pair of planes, as matmul_backward_mma
// order     see gemm_mma.cuh; then bias, sigmoid and one rounding
#include "bias_sigmoid.cuh"
#include "gemm_mma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_mma(const Plane* __restrict__ x, Offset x_row, Offset x_plane,
                  const int* __restrict__ x_exponent, const Plane* __restrict__ w, Offset w_row,
                  Offset w_plane, const int* __restrict__ w_exponent,
                  const Element* __restrict__ b, Offset b_stride, Element* y, Offset y_n,
                  Offset y_m, int y_packed, Offset n, Offset m, Offset k) {
  gemm_mma(LeftPlanes{x, x_row, x_plane, x_exponent}, RightPlanes{w, w_row, w_plane, w_exponent},
           Target<Element>{y, y_n, y_m, nullptr, y_packed, 0}, n, m, k, k > 0 ? k : 1,
           BiasSigmoid{b, b_stride, m});
}
