// sigmoid_bias_backward: dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined, and
// db = Σ_i dz_i in the same pass. The kernel sigmoid_bias_sum computes db alone.
//
// shapes    dy, saved (y or z), dz: (n, m), any strides, in elements; db: (m,), any stride;
//           partial: (splits, m); dz may be dy or saved
// launch    grid (⌈m / (block_x VECTOR)⌉, splits), block (block_x, block_y), powers of two,
//           block_x block_y = THREADS
// shared    VECTOR × THREADS accumulators, static
// requires  packed: all column strides 1, every row of all matrices 16-byte aligned
// traffic   reads dy and saved, writes dz once each; 4 flops an element, about 21 from logits
// order     db sums dz before it is rounded: rows of a thread ascending, threads by a binary tree,
//           then reduce_splits
#include "column_sum.cuh"
#include "sigmoid.cuh"

// dz, computed as it is added and, if STORE, written.
template <bool STORE>
struct Gradient {
  const Element *dy, *saved;
  Element* dz;
  Offset dy_row, dy_column, saved_row, saved_column, dz_row, dz_column;
  bool accumulate;

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
    if (STORE) store_pack(dz + row * dz_row + column, accumulate, value);
  }
  __device__ __forceinline__ Accumulator one(Offset row, Offset column) const {
    const Accumulator value =
        sigmoid_gradient(widen(dy[row * dy_row + column * dy_column]),
                         widen(saved[row * saved_row + column * saved_column]));
    if (STORE) store_one(dz + row * dz_row + column * dz_column, accumulate, value);
    return value;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sigmoid_bias_backward(const Element* dy, Offset dy_row, Offset dy_column, const Element* saved,
                      Offset saved_row, Offset saved_column, Element* dz, Offset dz_row,
                      Offset dz_column, Result* db, Offset db_stride, Accumulator* partial,
                      Offset n, Offset m, Offset split_length, int packed, int accumulate_dz,
                      int accumulate_db) {
  const Gradient<true> gradient{dy,        saved,        dz,     dy_row,    dy_column, saved_row,
                                saved_column, dz_row,       dz_column, accumulate_dz != 0};
  column_sum(gradient, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate_db != 0});
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
sigmoid_bias_sum(const Element* __restrict__ dy, Offset dy_row, Offset dy_column,
                 const Element* __restrict__ saved, Offset saved_row, Offset saved_column,
                 Result* db, Offset db_stride, Accumulator* partial, Offset n, Offset m,
                 Offset split_length, int packed, int accumulate_db) {
  const Gradient<false> gradient{dy,           saved, nullptr, dy_row, dy_column, saved_row,
                                 saved_column, 0,     0,       false};
  column_sum(gradient, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate_db != 0});
}
