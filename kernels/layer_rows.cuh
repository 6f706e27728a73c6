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
};

// What a thread brings of ROWS rows of COLUMNS columns: packs of one column, ROW_STEP rows apart.
template <int ROWS, int COLUMNS>
struct Strip {
  static constexpr int PACKS = COLUMNS / VECTOR;    // of a row
  static constexpr int ROW_STEP = THREADS / PACKS;
  static constexpr int COUNT = ROWS / ROW_STEP;     // of a thread
  static_assert(THREADS % PACKS == 0 && ROWS % ROW_STEP == 0, "each thread brings as many packs");

  Pack<Element, VECTOR> pack[COUNT];

  static __device__ __forceinline__ int row(int i) { return threadIdx.x / PACKS + i * ROW_STEP; }
  static __device__ __forceinline__ int column() { return threadIdx.x % PACKS * VECTOR; }

  // Reads from (row0, column0) on; what lies at or beyond an end is zero.
  __device__ __forceinline__ void load(const Matrix& matrix, Offset row0, Offset row_end,
                                       Offset column0, Offset column_end) {
    const Offset first = column0 + column();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const Element* from = matrix.p + (row0 + row(i)) * matrix.row_stride;
      if (row0 + row(i) >= row_end) {
        zero(pack[i]);
      } else if (matrix.packed && first + VECTOR <= column_end) {
        pack[i] = load_pack<VECTOR>(from + first);
      } else {
        zero(pack[i]);
#pragma unroll
        for (int e = 0; e < VECTOR; ++e)
          if (first + e < column_end) pack[i].v[e] = from[(first + e) * matrix.column_stride];
      }
    }
  }
  static __device__ __forceinline__ void zero(Pack<Element, VECTOR>& one) {
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) one.v[e] = Narrow<Element>::from(0);
  }
};

// dz of a step's rows, and the sum of all that this thread has computed.
template <int ROWS, int COLUMNS>
struct GradientRows {
  typedef Strip<ROWS, COLUMNS> Part;
  Part dy, saved;
  Accumulator sum[VECTOR];

  __device__ __forceinline__ GradientRows() {
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) sum[e] = 0;
  }
  __device__ __forceinline__ void load(const Matrix& of_dy, const Matrix& of_saved, Offset row0,
                                       Offset row_end, Offset m) {
    dy.load(of_dy, row0, row_end, 0, m);
    saved.load(of_saved, row0, row_end, 0, m);
  }
  // What was loaded as the i-th pack of the step; each is taken once.
  __device__ __forceinline__ void take(int i, Accumulator (&value)[VECTOR]) {
    Accumulator s[VECTOR];
    widen_pack(dy.pack[i], value);
    widen_pack(saved.pack[i], s);
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) {
      value[e] = sigmoid_gradient(value[e], s[e]);
      sum[e] += value[e];
    }
  }

  // Adds the sums of all threads, in the order of their rows, through shared memory (ROW_STEP,
  // COLUMNS) that nobody uses any more. total(column) is then right for threads below COLUMNS.
  static constexpr int LANES = Part::ROW_STEP;

  __device__ __forceinline__ void gather(Accumulator* lanes) const {
#pragma unroll
    for (int e = 0; e < VECTOR; e += 4)
      *reinterpret_cast<Pack<Accumulator, 4>*>(lanes + Part::row(0) * COLUMNS + Part::column() + e) =
          {sum[e], sum[e + 1], sum[e + 2], sum[e + 3]};
  }
  static __device__ __forceinline__ Accumulator total(const Accumulator* lanes, int column) {
    Accumulator found = lanes[column];
#pragma unroll
    for (int lane = 1; lane < LANES; ++lane) found += lanes[lane * COLUMNS + column];
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
