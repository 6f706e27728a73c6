// split_planes: x as a sum of 16-bit planes, with the exponents of its rows or its columns where
// PLANES < 3; see planes.cuh.
//
// shapes    x: (rows, columns), any strides, in elements; planes: (PLANES, rows, columns), rows
//           pitch apart; row_exponents: (rows,), column_exponents: (columns,), one of them null
// launch    grid (⌈columns / (PACK block_x)⌉, min(⌈rows / block_y⌉, 65535)), block (block_x,
//           block_y), block_x block_y = THREADS
// shared    none
// requires  planes: every row 16-byte aligned; packed: column stride of x 1, every row of x 16-byte
//           aligned
// traffic   reads x once, writes the planes once, 16 bytes an access
// order     no sums
#include "split_row.cuh"

static_assert(PACK * int(sizeof(Plane)) == 16, "the pack of a thread");

extern "C" __global__ void __launch_bounds__(THREADS, 3)
split_planes(const Element* __restrict__ x, Offset x_row, Offset x_column,
             Plane* __restrict__ planes, Offset pitch, const int* __restrict__ row_exponents,
             const int* __restrict__ column_exponents, Offset rows, Offset columns, int packed) {
  const Offset column = (Offset(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
  if (column >= columns) return;
  const Offset plane_stride = rows * pitch;
  int exponent[PACK] = {};
  if (column_exponents) {
#pragma unroll
    for (int e = 0; e < PACK; ++e)
      if (column + e < columns) exponent[e] = column_exponents[column + e];
  }
  const Offset step = Offset(gridDim.y) * blockDim.y;
  for (Offset row = Offset(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) {
    float value[PACK];
    load_row(x + row * x_row, x_column, column, columns, packed, value);
    if (WITH_EXPONENTS) {
      const int of_row = row_exponents ? row_exponents[row] : 0;
#pragma unroll
      for (int e = 0; e < PACK; ++e) value[e] = scaled(value[e], exponent[e] + of_row);
    }
    Plane* to = planes + row * pitch + column;
    if (column + PACK <= columns) {
      split_pack(to, plane_stride, value);
    } else {
#pragma unroll
      for (int e = 0; e < PACK; ++e)
        if (column + e < columns) split_one(to + e, plane_stride, value[e]);
    }
  }
}
