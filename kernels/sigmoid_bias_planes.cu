// sigmoid_bias_planes: the planes of dz = dy y (1 − y), or of dy σ(z) σ(−z) where FROM_LOGITS is
// defined, and db = Σ_i dz_i in the same pass.
//
// shapes    dy, saved (y or z): (n, m), any strides, in elements; dz_by_row, dz_by_column:
//           (PLANES, n, m), rows pitch apart, or null; row_exponents: (n,), column_exponents: (m,);
//           db: (m,), any stride, or null; partial: (splits, m), or null as db is; dz_by_row alone,
//           without exponents, where PLANES is 3
// launch    grid (⌈m / (block_x VECTOR)⌉, splits), block (block_x, block_y), powers of two,
//           block_x block_y = THREADS
// shared    VECTOR × THREADS accumulators, static
// requires  planes: every row 16-byte aligned; column_exponents: 16-byte aligned; packed: column
//           strides of dy and saved 1, every row of them 16-byte aligned
// traffic   reads dy and saved, writes the planes that are asked for once each
// order     db as sigmoid_bias_backward: the same bits as of sigmoid_bias_sum
#include "column_sum.cuh"
#include "sigmoid.cuh"
#include "split_row.cuh"

// dz, computed as it is added and written as planes.
struct Gradient {
  const Element *dy, *saved;
  Plane *dz_by_row, *dz_by_column;
  const int *row_exponents, *column_exponents;
  Offset dy_row, dy_column, saved_row, saved_column, pitch, plane_stride;

  struct Loaded {
    Pack<Element, VECTOR> dy, saved;
  };

  __device__ __forceinline__ Loaded load(Offset row, Offset column) const {
    return {load_pack<VECTOR>(dy + row * dy_row + column),
            load_pack<VECTOR>(saved + row * saved_row + column)};
  }
  __device__ __forceinline__ void take(const Loaded& loaded, Offset row, Offset column,
                                       Accumulator (&value)[VECTOR]) const {
    Accumulator s[VECTOR];
    widen_pack(loaded.dy, value);
    widen_pack(loaded.saved, s);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) value[e] = sigmoid_gradient(value[e], s[e]);
    const Offset at = row * pitch + column;
    if (!WITH_EXPONENTS) {
      split_pack(dz_by_row + at, plane_stride, value);
      return;
    }
    Accumulator scaled_value[VECTOR];
    if (dz_by_row) {
      const int exponent = row_exponents[row];
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) scaled_value[e] = scaled(value[e], exponent);
      split_pack(dz_by_row + at, plane_stride, scaled_value);
    }
    if (dz_by_column) {
      const auto exponent =
          *reinterpret_cast<const Pack<int, VECTOR>*>(column_exponents + column);
#pragma unroll
      for (int e = 0; e < VECTOR; ++e) scaled_value[e] = scaled(value[e], exponent.v[e]);
      split_pack(dz_by_column + at, plane_stride, scaled_value);
    }
  }
  __device__ __forceinline__ Accumulator one(Offset row, Offset column) const {
    const Accumulator value =
        sigmoid_gradient(widen(dy[row * dy_row + column * dy_column]),
                         widen(saved[row * saved_row + column * saved_column]));
    const Offset at = row * pitch + column;
    if (!WITH_EXPONENTS) {
      split_one(dz_by_row + at, plane_stride, value);
      return value;
    }
    if (dz_by_row) split_one(dz_by_row + at, plane_stride, scaled(value, row_exponents[row]));
    if (dz_by_column)
      split_one(dz_by_column + at, plane_stride, scaled(value, column_exponents[column]));
    return value;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sigmoid_bias_planes(const Element* __restrict__ dy, Offset dy_row, Offset dy_column,
                    const Element* __restrict__ saved, Offset saved_row, Offset saved_column,
                    Plane* dz_by_row, const int* __restrict__ row_exponents, Plane* dz_by_column,
                    const int* __restrict__ column_exponents, Offset pitch, Result* db,
                    Offset db_stride, Accumulator* partial, Offset n, Offset m,
                    Offset split_length, int packed, int accumulate_db) {
  const Gradient gradient{dy,        saved,        dz_by_row, dz_by_column, row_exponents,
                          column_exponents, dy_row,    dy_column, saved_row,    saved_column,
                          pitch,     n * pitch};
  column_sum(gradient, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate_db != 0});
}
