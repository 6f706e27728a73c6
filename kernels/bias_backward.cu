// bias_backward: db = Σ_i dy_i.
//
// shapes    dy: (n, m), any strides, in elements; db: (m,), any stride; partial: (splits, m)
// launch    grid (⌈m / (block_x VECTOR)⌉, splits), block (block_x, block_y), powers of two,
//           block_x block_y = THREADS
// shared    VECTOR × THREADS accumulators, static
// requires  packed: column stride 1, every row 16-byte aligned
// traffic   reads dy once, writes m or splits × m values; 1 flop an element
// order     rows of a thread ascending, threads by a binary tree, then reduce_splits
#include "column_sum.cuh"

struct Rows {
  const Element* dy;
  Offset row_stride, column_stride;

  typedef Pack<Element, VECTOR> Loaded;

  __device__ __forceinline__ Loaded load(Offset row, Offset column) const {
    return load_pack<VECTOR>(dy + row * row_stride + column);
  }
  __device__ __forceinline__ void take(const Loaded& loaded, Offset, Offset,
                                       Accumulator (&value)[VECTOR]) const {
    widen_pack(loaded, value);
  }
  __device__ __forceinline__ Accumulator one(Offset row, Offset column) const {
    return widen(dy[row * row_stride + column * column_stride]);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
bias_backward(const Element* __restrict__ dy, Offset dy_row, Offset dy_column, Result* db,
              Offset db_stride, Accumulator* partial, Offset n, Offset m, Offset split_length,
              int packed, int accumulate) {
  column_sum(Rows{dy, dy_row, dy_column}, packed, n, m, split_length,
             ColumnSums{partial, db, db_stride, accumulate != 0});
}
