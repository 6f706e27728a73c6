// dense_sigmoid_dmma: y = σ(x w + b), the product on the FP64 tensor cores.
//
// shapes    x: (n, k), w: (k, m), y: (n, m), any strides, in elements; b: (m,), any stride, or
//           null; M = n, N = m, K = k
// launch    grid (⌈n / BLOCK_M⌉ ⌈m / BLOCK_N⌉, 1), block (THREADS)
// shared    STAGES × (BLOCK_M + BLOCK_N) × (BLOCK_K + PADDING) × 8 bytes, dynamic
// requires  as matmul_backward_dmma
// traffic   2 n k m flops
// order     one sum over k, ascending, as matmul_backward_dmma; then bias and sigmoid
#include "bias_sigmoid.cuh"
#include "gemm_dmma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_dmma(const Element* __restrict__ x, Offset x_n, Offset x_k, int x_packed,
                   const Element* __restrict__ w, Offset w_m, Offset w_k, int w_packed,
                   const Element* __restrict__ b, Offset b_stride, Element* y, Offset y_n,
                   Offset y_m, int y_packed, Offset n, Offset m, Offset k) {
  gemm_dmma(Left{x, x_n, x_k, x_packed}, Right{w, w_m, w_k, w_packed},
            Target<Element>{y, y_n, y_m, nullptr, y_packed, 0}, n, m, k, k,
            BiasSigmoid{b, b_stride, m});
}
