// The rows of a layer in the fused backward kernels, which compute dx, dw and db in one launch.
//
// A CTA owns a range of rows and walks it in steps. While the rows of one step are multiplied,
// those of the next are in flight from global memory to registers; dz is computed as they are
// stored to
// shared memory, is summed over the rows for db, and is never in global memory.
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
  // The same of a whole pack, without a check of the columns.
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

// The packs of a thread in HEIGHT rows of WIDTH columns: in one column, ROW_STEP rows apart.
template <int HEIGHT, int WIDTH>
struct PackLayout {
  static constexpr int PACKS = WIDTH / VECTOR;    // of a row
  static constexpr int ROW_STEP = THREADS / PACKS;
  static constexpr int COUNT = HEIGHT / ROW_STEP;     // of a thread
  static_assert(THREADS % PACKS == 0 && HEIGHT % ROW_STEP == 0, "all threads have as many packs");

  static __device__ __forceinline__ int row(int i) { return threadIdx.x / PACKS + i * ROW_STEP; }
  static __device__ __forceinline__ int column() { return threadIdx.x % PACKS * VECTOR; }
};

// A thread's packs of x of a step. Whole packs are prefetched while the step before is multiplied;
// packs that are read element by element are not, for they would take too many registers.
template <int HEIGHT, int WIDTH>
struct InputRows {
  typedef PackLayout<HEIGHT, WIDTH> Layout;
  Pack<Element, VECTOR> pack[Layout::COUNT];

  __device__ __forceinline__ void load(const Matrix& x, Offset row0, Offset row_end, Offset column0,
                                       Offset column_end) {
    const Offset column = column0 + Layout::column();
    const Offset end = x.whole(column, column_end) ? row_end : 0;
#pragma unroll
    for (int i = 0; i < Layout::COUNT; ++i)
      pack[i] = x.read_whole(row0 + Layout::row(i), end, column);
  }
  // store(row of the step, column, pack) for each pack.
  template <typename Store>
  __device__ __forceinline__ void take(const Matrix& x, Offset row0, Offset row_end,
                                       Offset column0, Offset column_end, const Store& store) {
    const Offset column = column0 + Layout::column();
    if (x.whole(column, column_end)) {
#pragma unroll
      for (int i = 0; i < Layout::COUNT; ++i) store(Layout::row(i), Layout::column(), pack[i]);
    } else {
#pragma unroll 1
      for (int i = 0; i < Layout::COUNT; ++i)
        store(Layout::row(i), Layout::column(),
              x.read(row0 + Layout::row(i), row_end, column, column_end));
    }
  }
};

// The same of dz, and the thread's sum of its elements.
template <int HEIGHT, int WIDTH>
struct GradientRows {
  typedef PackLayout<HEIGHT, WIDTH> Layout;
  Pack<Element, VECTOR> dy_pack[Layout::COUNT], saved_pack[Layout::COUNT];
  Accumulator sum[VECTOR];

  __device__ __forceinline__ GradientRows() {
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) sum[e] = 0;
  }
  __device__ __forceinline__ void load(const Matrix& dy, const Matrix& saved, Offset row0,
                                       Offset row_end, Offset m) {
    const int column = Layout::column();
    const Offset end = dy.whole(column, m) && saved.whole(column, m) ? row_end : 0;
#pragma unroll
    for (int i = 0; i < Layout::COUNT; ++i) {
      dy_pack[i] = dy.read_whole(row0 + Layout::row(i), end, column);
      saved_pack[i] = saved.read_whole(row0 + Layout::row(i), end, column);
    }
  }
  // store(row of the step, column, values of dz) for each pack.
  template <typename Store>
  __device__ __forceinline__ void take(const Matrix& dy, const Matrix& saved, Offset row0,
                                       Offset row_end, Offset m, const Store& store) {
    const int column = Layout::column();
    if (dy.whole(column, m) && saved.whole(column, m)) {
#pragma unroll
      for (int i = 0; i < Layout::COUNT; ++i) take_one(i, dy_pack[i], saved_pack[i], store);
    } else {
#pragma unroll 1
      for (int i = 0; i < Layout::COUNT; ++i) {
        const Offset row = row0 + Layout::row(i);
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
    store(Layout::row(i), Layout::column(), value);
  }

  // Stores the sums of all threads to shared memory (ROW_STEP, WIDTH) that is free. After a barrier
  // total(column) adds them in the order of their rows, for columns < WIDTH.
  static constexpr int THREADS_PER_SUM = Layout::ROW_STEP;

  __device__ __forceinline__ void gather(Accumulator* smem) const {
#pragma unroll
    for (int e = 0; e < VECTOR; e += 4)
      *reinterpret_cast<Pack<Accumulator, 4>*>(smem + Layout::row(0) * WIDTH + Layout::column() +
                                               e) = {sum[e], sum[e + 1], sum[e + 2], sum[e + 3]};
  }
  static __device__ __forceinline__ Accumulator total(const Accumulator* smem, int column) {
    Accumulator found = smem[column];
#pragma unroll
    for (int thread = 1; thread < THREADS_PER_SUM; ++thread)
      found += smem[thread * WIDTH + column];
    return found;
  }
};

// dw and db: the results, or the partial sums of the CTAs that split the rows.
struct LayerSums {
  Element* dw;
  Offset dw_row, dw_column;
  int dw_packed;             // dw_column is 1, and rows of dw are aligned for packs of four
  Accumulator* dw_partial;   // (gridDim.y, k, m), or null
  Element* db;
  Offset db_stride;
  Accumulator* db_partial;   // (gridDim.y, m), or null
  int accumulate_dw, accumulate_db;
  Offset k, m;

  __device__ __forceinline__ bool with_dw() const { return dw || dw_partial; }
  __device__ __forceinline__ bool with_db() const { return db || db_partial; }

  // N adjacent elements of a row of dw, those before its end.
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
