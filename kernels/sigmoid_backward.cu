// sigmoid_backward: dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined.
//
// shapes    dy, saved (y or z), dz: (rows, columns), any strides, in elements; dz may be dy or
//           saved
// launch    grid (⌈columns / (THREADS VECTOR)⌉, min(rows, 65535)), block (THREADS)
// shared    none
// requires  packed: all column strides 1, every row of all three 16-byte aligned
// traffic   reads dy and saved, writes dz once each; 3 flops an element, about 20 from logits
// order     no sums
#include "matrix.cuh"
#include "sigmoid.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
sigmoid_backward(const Element* dy, Offset dy_row, Offset dy_column, const Element* saved,
                 Offset saved_row, Offset saved_column, Element* dz, Offset dz_row,
                 Offset dz_column, Offset rows, Offset columns, int packed) {
  const Offset column = (Offset(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;
  if (column >= columns) return;
  for (Offset row = blockIdx.y; row < rows; row += gridDim.y) {
    Accumulator value[VECTOR], s[VECTOR];
    load_row(dy + row * dy_row, dy_column, column, columns, packed, value);
    load_row(saved + row * saved_row, saved_column, column, columns, packed, s);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) value[e] = sigmoid_gradient(value[e], s[e]);
    store_row(dz + row * dz_row, dz_column, column, columns, packed, false, value);
  }
}
