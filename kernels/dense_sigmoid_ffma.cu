// dense_sigmoid_ffma: y = σ(x w + b).
//
// shapes    x: (n, k), w: (k, m), y: (n, m), any strides, in elements; b: (m,), any stride, or
//           null; M = n, N = m, K = k
// launch    grid (⌈n / BLOCK_M⌉ ⌈m / BLOCK_N⌉, 1), block (THREADS)
// shared    2 × STAGES × BLOCK_K × (BLOCK_N + 4) accumulators, static
// requires  as matmul_backward_ffma
// traffic   2 n k m flops
// order     one chain of fused multiply-adds over k, ascending; then bias, sigmoid and one rounding
#include "bias_sigmoid.cuh"
#include "gemm_ffma.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_ffma(const Element* __restrict__ x, Offset x_n, Offset x_k, int x_k_major,
                   int x_packed, const Element* __restrict__ w, Offset w_m, Offset w_k,
                   int w_k_major, int w_packed, const Element* __restrict__ b, Offset b_stride,
                   Element* y, Offset y_n, Offset y_m, int y_packed, Offset n, Offset k, Offset m) {
  gemm_ffma(Operand{x, x_n, x_k, x_k_major, x_packed}, Operand{w, w_m, w_k, w_k_major, w_packed},
            Target<Element>{y, y_n, y_m, nullptr, y_packed, 0}, n, m, k, k > 0 ? k : 1,
            BiasSigmoid{b, b_stride, m});
}
