// sigmoid_bias_backward: dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined, and
// db = Σ_i dz_i in the same pass. The kernel sigmoid_bias_sum leaves dz out.
//
// shapes    dy, saved (y or z), dz: (n, m), any strides, in elements; db: (m,), any stride;
//           partial: (splits, m); dz may be dy or saved
// launch    grid (⌈m / (lanes_x VECTOR)⌉, splits), block (lanes_x, lanes_y), both powers of two,
//           lanes_x lanes_y = 256
// shared    VECTOR × 256 accumulators, static
// requires  packed: all column strides 1, every row of all matrices 16-byte aligned
// traffic   reads dy and saved, writes dz once each; 4 flops an element, about 21 from logits
// order     db sums dz before it is rounded: rows of a lane ascending, lanes by a binary tree,
//           splits ascending (reduce_splits)
#include "column_sum.cuh"
#include "sigmoid.cuh"

// dz, computed row by row and, if STORE, written on the way.
template <bool STORE>
struct Gradient {
  const Element *dy, *saved;
  Element* dz;
  Offset dy_row, dy_column, saved_row, saved_column, dz_row, dz_column, columns;
  bool accumulate;

  template <bool PACKED>
  __device__ __forceinline__ void read(Offset row, Offset column,
                                       Accumulator (&value)[VECTOR]) const {
    Accumulator s[VECTOR];
    if (PACKED) {
      load_pack(dy + row * dy_row + column, value);
      load_pack(saved + row * saved_row + column, s);
    } else {
      load_each(dy + row * dy_row, dy_column, column, columns, value);
      load_each(saved + row * saved_row, saved_column, column, columns, s);
    }
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) value[e] = sigmoid_gradient(value[e], s[e]);
    if (STORE)
      store_row(dz + row * dz_row, dz_column, column, columns, PACKED, accumulate, value);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sigmoid_bias_backward(const Element* dy, Offset dy_row, Offset dy_column, const Element* saved,
                      Offset saved_row, Offset saved_column, Element* dz, Offset dz_row,
                      Offset dz_column, Result* db, Offset db_stride, Accumulator* partial,
                      Offset n, Offset m, Offset split_length, int packed, int accumulate_dz,
                      int accumulate_db) {
  const Gradient<true> gradient{dy,        saved,        dz,     dy_row,    dy_column, saved_row,
                                saved_column, dz_row,       dz_column, m,  accumulate_dz != 0};
  column_sum(gradient, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate_db != 0});
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sigmoid_bias_sum(const Element* __restrict__ dy, Offset dy_row, Offset dy_column,
                 const Element* __restrict__ saved, Offset saved_row, Offset saved_column,
                 Result* db, Offset db_stride, Accumulator* partial, Offset n, Offset m,
                 Offset split_length, int packed, int accumulate_db) {
  const Gradient<false> gradient{dy,           saved, nullptr, dy_row, dy_column, saved_row,
                                 saved_column, 0,     0,       m,      false};
  column_sum(gradient, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate_db != 0});
}
