// sigmoid: y = σ(z), element by element.
//
// shapes    z, y: (rows, columns), any strides, in elements; y may be z
// launch    grid (⌈columns / (THREADS VECTOR)⌉, min(rows, 65535)), block (THREADS)
// shared    none
// requires  packed: both column strides 1, every row of both 16-byte aligned
// traffic   reads z, writes y once each; about 20 flops an element
// order     no sums
#include "matrix.cuh"
#include "sigmoid.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
sigmoid(const Element* z, Offset z_row, Offset z_column, Element* y, Offset y_row, Offset y_column,
        Offset rows, Offset columns, int packed) {
  const Offset column = (Offset(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;
  if (column >= columns) return;
  for (Offset row = blockIdx.y; row < rows; row += gridDim.y) {
    Accumulator value[VECTOR];
    load_row(z + row * z_row, z_column, column, columns, packed, value);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) value[e] = logistic(value[e]);
    store_row(y + row * y_row, y_column, column, columns, packed, false, value);
  }
}
