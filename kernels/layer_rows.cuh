// Rows of a layer on their way through a block that computes dx, dw and db of them in one launch.
//
// A block owns a range of rows and walks it in steps. While one step's rows are multiplied, those of
// the next are on their way from global memory into registers; dz is computed from them as they are
// brought to shared memory, summed over the rows for db, and never leaves the block.
#pragma once
#include "matrix.cuh"
#include "sigmoid.cuh"

// A matrix of any strides; packed: its column stride is 1, and every row of it is 16-byte aligned.
struct Matrix {
  const Element* p;
  Offset row_stride, column_stride;
  int packed;

  __device__ __forceinline__ bool whole(Offset column, Offset column_end) const {
    return packed && column + VECTOR <= column_end;
  }
  // VECTOR elements of a row from `column` on; those at or beyond an end are zero.
  __device__ __forceinline__ Pack<Element, VECTOR> read(Offset row, Offset row_end, Offset column,
                                                        Offset column_end) const {
    if (whole(column, column_end)) return read_whole(row, row_end, column);
    Pack<Element, VECTOR> found = zeros();
    const Element* from = p + row * row_stride + column * column_stride;
#pragma unroll
    for (int e = 0; e < VECTOR; ++e, from += column_stride)
      if (row < row_end && column + e < column_end) found.v[e] = *from;
    return found;
  }
  // The same of what is whole, without a look at where columns end.
  __device__ __forceinline__ Pack<Element, VECTOR> read_whole(Offset row, Offset row_end,
                                                              Offset column) const {
    return row < row_end ? load_pack<VECTOR>(p + row * row_stride + column) : zeros();
  }
  static __device__ __forceinline__ Pack<Element, VECTOR> zeros() {
    Pack<Element, VECTOR> found;
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) found.v[e] = Narrow<Element>::from(0);
    return found;
  }
};

// Where the packs of a thread lie in HEIGHT rows of WIDTH columns: in one column, ROW_STEP rows apart.
template <int HEIGHT, int WIDTH>
struct Strip {
  static constexpr int PACKS = WIDTH / VECTOR;    // of a row
  static constexpr int ROW_STEP = THREADS / PACKS;
  static constexpr int COUNT = HEIGHT / ROW_STEP;     // of a thread
  static_assert(THREADS % PACKS == 0 && HEIGHT % ROW_STEP == 0, "each thread brings as many packs");

  static __device__ __forceinline__ int row(int i) { return threadIdx.x / PACKS + i * ROW_STEP; }
  static __device__ __forceinline__ int column() { return threadIdx.x % PACKS * VECTOR; }
};

// What a thread brings of a step's rows of x. Whole packs are on their way while the step before is
// multiplied; elements that have to be read one by one are read when they are wanted, for they would
// take too many registers meanwhile.
template <int HEIGHT, int WIDTH>
struct InputRows {
  typedef Strip<HEIGHT, WIDTH> Part;
  Pack<Element, VECTOR> pack[Part::COUNT];

  __device__ __forceinline__ void load(const Matrix& x, Offset row0, Offset row_end, Offset column0,
                                       Offset column_end) {
    const Offset column = column0 + Part::column();
    const Offset end = x.whole(column, column_end) ? row_end : 0;
#pragma unroll
    for (int i = 0; i < Part::COUNT; ++i)
      pack[i] = x.read_whole(row0 + Part::row(i), end, column);
  }
  // store(row of the step, column, pack) for each pack.
  template <typename Store>
  __device__ __forceinline__ void take(const Matrix& x, Offset row0, Offset row_end,
                                       Offset column0, Offset column_end, const Store& store) {
    const Offset column = column0 + Part::column();
    if (x.whole(column, column_end)) {
#pragma unroll
      for (int i = 0; i < Part::COUNT; ++i) store(Part::row(i), Part::column(), pack[i]);
    } else {
#pragma unroll 1
      for (int i = 0; i < Part::COUNT; ++i)
        store(Part::row(i), Part::column(),
              x.read(row0 + Part::row(i), row_end, column, column_end));
    }
  }
};

// The same of dz, and the sum of all that this thread has computed of it.
template <int HEIGHT, int WIDTH>
struct GradientRows {
  typedef Strip<HEIGHT, WIDTH> Part;
  Pack<Element, VECTOR> dy_pack[Part::COUNT], saved_pack[Part::COUNT];
  Accumulator sum[VECTOR];

  __device__ __forceinline__ GradientRows() {
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) sum[e] = 0;
  }
  __device__ __forceinline__ void load(const Matrix& dy, const Matrix& saved, Offset row0,
                                       Offset row_end, Offset m) {
    const int column = Part::column();
    const Offset end = dy.whole(column, m) && saved.whole(column, m) ? row_end : 0;
#pragma unroll
    for (int i = 0; i < Part::COUNT; ++i) {
      dy_pack[i] = dy.read_whole(row0 + Part::row(i), end, column);
      saved_pack[i] = saved.read_whole(row0 + Part::row(i), end, column);
    }
  }
  // store(row of the step, column, values of dz) for each pack.
  template <typename Store>
  __device__ __forceinline__ void take(const Matrix& dy, const Matrix& saved, Offset row0,
                                       Offset row_end, Offset m, const Store& store) {
    const int column = Part::column();
    if (dy.whole(column, m) && saved.whole(column, m)) {
#pragma unroll
      for (int i = 0; i < Part::COUNT; ++i) take_one(i, dy_pack[i], saved_pack[i], store);
    } else {
#pragma unroll 1
      for (int i = 0; i < Part::COUNT; ++i) {
        const Offset row = row0 + Part::row(i);
        take_one(i, dy.read(row, row_end, column, m), saved.read(row, row_end, column, m), store);
      }
    }
  }
  template <typename Store>
  __device__ __forceinline__ void take_one(int i, const Pack<Element, VECTOR>& dy,
                                           const Pack<Element, VECTOR>& saved,
                                           const Store& store) {
    Accumulator value[VECTOR], s[VECTOR];
    widen_pack(dy, value);
    widen_pack(saved, s);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) {
      value[e] = sigmoid_gradient(value[e], s[e]);
      sum[e] += value[e];
    }
    store(Part::row(i), Part::column(), value);
  }

  // Adds the sums of all threads, in the order of their rows, through shared memory (ROW_STEP,
  // WIDTH) that nobody uses any more. total(column) is then right for threads below WIDTH.
  static constexpr int LANES = Part::ROW_STEP;

  __device__ __forceinline__ void gather(Accumulator* lanes) const {
#pragma unroll
    for (int e = 0; e < VECTOR; e += 4)
      *reinterpret_cast<Pack<Accumulator, 4>*>(lanes + Part::row(0) * WIDTH + Part::column() + e) =
          {sum[e], sum[e + 1], sum[e + 2], sum[e + 3]};
  }
  static __device__ __forceinline__ Accumulator total(const Accumulator* lanes, int column) {
    Accumulator found = lanes[column];
#pragma unroll
    for (int lane = 1; lane < LANES; ++lane) found += lanes[lane * WIDTH + column];
    return found;
  }
};

// dw and db: the results, or partial sums of the blocks that share the rows.
struct LayerSums {
  Element* dw;
  Offset dw_row, dw_column;
  int dw_packed;             // rows of dw can be stored in aligned packs of four
  Accumulator* dw_partial;   // (gridDim.y, k, m), or null
  Element* db;
  Offset db_stride;
  Accumulator* db_partial;   // (gridDim.y, m), or null
  int accumulate_dw, accumulate_db;
  Offset k, m;

  __device__ __forceinline__ bool with_dw() const { return dw || dw_partial; }
  __device__ __forceinline__ bool with_db() const { return db || db_partial; }

  // N neighbouring elements of a row of dw, those before its end.
  template <int N>
  __device__ __forceinline__ void store_dw(Offset row, Offset column,
                                           const Accumulator (&value)[N]) const {
    if (row >= k) return;
    if (dw_partial)
      store_row(dw_partial + (blockIdx.y * k + row) * m, 1, column, m, m % 4 == 0, false, value);
    else
      store_row(dw + row * dw_row, dw_column, column, m, dw_packed, accumulate_dw, value);
  }
  __device__ __forceinline__ void store_db(Offset column, Accumulator value) const {
    if (column >= m) return;
    if (db_partial)
      store_one(db_partial + blockIdx.y * m + column, false, value);
    else
      store_one(db + column * db_stride, accumulate_db, value);
  }
};
