// dense_sigmoid_backward_fused_ffma: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz_i, fused, where
// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined; for layers of few outputs, by
// FFMA (SIMT).
//
// shapes    dy, saved (y or z): (n, m), x, dx: (n, k), w, dw: (k, m), db: (m,), any strides, in
//           elements; dw_partial: (splits, k, m), db_partial: (splits, m); null where it is not
//           computed: of dw and db the result or the partial sums
// launch    grid (⌈k / INPUTS⌉, splits), at least 1 each way, block (THREADS)
// shared    (INPUTS × OUTPUTS + 2 × ROWS × (OUTPUTS + PADDING)) × 4 bytes, dynamic
// requires  m ≤ OUTPUTS; split_length a multiple of ROWS; partial sums where splits > 1, 16-byte
//           aligned; packed: column stride 1, every row 16-byte aligned
// traffic   4 n k m flops; reads x once, w once a split, dy and saved once for every INPUTS of k;
//           writes dx once, dw and db once or as partial sums
// order     dz in the accumulator's dtype; dx: one chain over m; dw: one chain over the rows of a
//           split; db: each thread its rows of a split ascending, then the threads; then
//           reduce_splits
#include "layer_rows.cuh"

constexpr int BLOCK = INPUTS;           // OUTPUTS
constexpr int PITCH = BLOCK + PADDING;  // of a row of x and dz in shared memory
constexpr int QUADS = BLOCK / 64;       // vectors of four in a thread tile of dw, each way
constexpr int DX_TILE = 4;              // rows, and columns, of a thread tile of dx
constexpr int ROW_THREADS = ROWS / DX_TILE, COLUMN_THREADS = BLOCK / DX_TILE;
constexpr int UNROLL = __CUDA_ARCH__ >= 1200 ? DW_UNROLL_SM120 : DW_UNROLL;
static_assert(INPUTS == OUTPUTS, "thread tiles of dw are square");
static_assert(SHARED_BYTES == (BLOCK * BLOCK + 2 * ROWS * PITCH) * int(sizeof(Accumulator)),
              "w, x and dz");
static_assert(sizeof(Accumulator) == 4 && VECTOR == 4, "float32, in packs of four");
static_assert(ROW_THREADS * COLUMN_THREADS == THREADS, "a thread tile of dx for every thread");
static_assert(COLUMN_THREADS % 8 == 0 && ROW_THREADS % 4 == 0, "a warp is 4 × 8 threads");

typedef Pack<Accumulator, 4> Quad;
typedef GradientRows<ROWS, BLOCK> Gradient;
typedef InputRows<ROWS, BLOCK> Inputs;

// w in shared memory: vectors of four are swizzled within a row, so that those of one column and of
// every fourth row have no bank conflicts.
__device__ __forceinline__ int swizzled(int row, int quad) {
  return row * BLOCK + (quad ^ row / 4 % 8) * 4;
}

__device__ __forceinline__ Quad& quad_at(Accumulator* p) { return *reinterpret_cast<Quad*>(p); }

// sum += xᵀ dz over the rows of a step, zeros beyond the last. A thread's inputs and outputs are
// vectors of four, 64 apart.
__device__ __forceinline__ void add_dw(Accumulator* x_tile, Accumulator* dz_tile, int ty, int tx,
                                       Accumulator (&sum)[QUADS * 4][QUADS * 4]) {
#pragma unroll(UNROLL)
  for (int r = 0; r < ROWS; ++r) {
    Quad a[QUADS], b[QUADS];
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      a[h] = quad_at(x_tile + r * PITCH + h * 64 + ty * 4);
      b[h] = quad_at(dz_tile + r * PITCH + h * 64 + tx * 4);
    }
#pragma unroll
    for (int i = 0; i < QUADS * 4; ++i)
#pragma unroll
      for (int j = 0; j < QUADS * 4; ++j)
        sum[i][j] = multiply_add(a[i / 4].v[i % 4], b[j / 4].v[j % 4], sum[i][j]);
  }
}

// dx of rows ry, ry + ROW_THREADS, … of a step, and of the inputs 4 kx to 4 kx + 3.
__device__ __forceinline__ void multiply_dx(Accumulator* dz_tile, Accumulator* w_tile, int ry,
                                            int kx, int outputs,
                                            Accumulator (&sum)[DX_TILE][DX_TILE]) {
#pragma unroll 1
  for (int q = 0; q < outputs; q += 4 * DX_UNROLL)
#pragma unroll
    for (int u = 0; u < DX_UNROLL; ++u) {  // beyond the last output there are zeros
      Quad a[DX_TILE], b[DX_TILE];
#pragma unroll
      for (int i = 0; i < DX_TILE; ++i) {
        a[i] = quad_at(dz_tile + (ry + i * ROW_THREADS) * PITCH + q + u * 4);
        b[i] = quad_at(w_tile + swizzled(kx * 4 + i, q / 4 + u));
      }
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int i = 0; i < DX_TILE; ++i)
#pragma unroll
          for (int j = 0; j < DX_TILE; ++j)
            sum[i][j] = multiply_add(a[i].v[e], b[j].v[e], sum[i][j]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_backward_fused_ffma(
    const Element* __restrict__ dy, Offset dy_n, Offset dy_m, int dy_packed,
    const Element* __restrict__ saved, Offset saved_n, Offset saved_m, int saved_packed,
    const Element* __restrict__ x, Offset x_n, Offset x_k, int x_packed,
    const Element* __restrict__ w, Offset w_k, Offset w_m, int w_packed, Element* dx, Offset dx_n,
    Offset dx_k, int dx_packed, Element* dw, Offset dw_k, Offset dw_m, int dw_packed,
    Accumulator* dw_partial, Element* db, Offset db_stride, Accumulator* db_partial,
    int accumulate_dx, int accumulate_dw, int accumulate_db, Offset n, Offset k, Offset m,
    Offset split_length) {
  extern __shared__ __align__(16) Accumulator shared[];
  Accumulator* const w_tile = shared;                     // (BLOCK, BLOCK)
  Accumulator* const x_tile = w_tile + BLOCK * BLOCK;     // (ROWS, PITCH)
  Accumulator* const dz_tile = x_tile + ROWS * PITCH;     // (ROWS, PITCH)
  const Matrix of_dy{dy, dy_n, dy_m, dy_packed}, of_saved{saved, saved_n, saved_m, saved_packed};
  const Matrix of_x{x, x_n, x_k, x_packed}, of_w{w, w_k, w_m, w_packed};
  const LayerSums sums{dw, dw_k, dw_m, dw_packed, dw_partial, db, db_stride, db_partial,
                       accumulate_dw, accumulate_db, k, m};
  const Offset k0 = Offset(blockIdx.x) * BLOCK;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < n ? first + split_length : n;

  // A warp is 4 × 8 threads. Lanes that differ in bit 0, or in bit 1, read the same vectors, so
  // that a wavefront of shared memory serves half a warp.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int lane_y = lane / 16 * 2 + lane % 2;                         // [0, 4)
  const int lane_x = lane / 2 % 8;                                     // [0, 8)
  const int ty = warp / 2 * 4 + lane_y, tx = warp % 2 * 8 + lane_x;    // [0, 16)
  const int ry = warp / (COLUMN_THREADS / 8) * 4 + lane_y;             // [0, ROW_THREADS)
  const int kx = warp % (COLUMN_THREADS / 8) * 8 + lane_x;             // [0, COLUMN_THREADS)

  if (dx)
    for (int quad = threadIdx.x; quad < BLOCK * BLOCK / 4; quad += THREADS) {
      const int row = quad / (BLOCK / 4), at = quad % (BLOCK / 4);
      Accumulator value[4] = {};
      if (k0 + row < k)
        load_row(of_w.p + (k0 + row) * of_w.row_stride, of_w.column_stride, at * 4, m, of_w.packed,
                 value);
      quad_at(w_tile + swizzled(row, at)) = {value[0], value[1], value[2], value[3]};
    }

  Accumulator dw_sum[QUADS * 4][QUADS * 4] = {};
  Gradient gradient;
  Inputs inputs;
#pragma unroll 1
  for (Offset row0 = first;; row0 += ROWS) {  // loads rows from row0 on, multiplies those before
    const Offset before = row0 - ROWS;
    if (dx && row0 > first) {
      Accumulator sum[DX_TILE][DX_TILE] = {};
      multiply_dx(dz_tile, w_tile, ry, kx, int(m), sum);
#pragma unroll
      for (int i = 0; i < DX_TILE; ++i) {
        const Offset row = before + ry + i * ROW_THREADS;
        if (row < last)
          store_row(dx + row * dx_n, dx_k, k0 + kx * 4, k, dx_packed, accumulate_dx, sum[i]);
      }
    }
    // After dx, whose registers are free now.
    gradient.load(of_dy, of_saved, row0, last, m);
    inputs.load(of_x, row0, sums.with_dw() ? last : 0, k0, k);
    if (sums.with_dw() && row0 > first) add_dw(x_tile, dz_tile, ty, tx, dw_sum);
    if (row0 >= last) break;
    __syncthreads();  // no thread reads the rows before
    gradient.take(of_dy, of_saved, row0, last, m,
                  [=](int r, int c, const Accumulator (&value)[4]) {
                    quad_at(dz_tile + r * PITCH + c) = {value[0], value[1], value[2], value[3]};
                  });
    if (sums.with_dw())
      inputs.take(of_x, row0, last, k0, k, [=](int r, int c, const Quad& pack) {
        quad_at(x_tile + r * PITCH + c) = pack;
      });
    __syncthreads();
  }

  if (sums.with_dw())
#pragma unroll
    for (int i = 0; i < QUADS * 4; ++i)
#pragma unroll
      for (int h = 0; h < QUADS; ++h) {
        const Accumulator value[4] = {dw_sum[i][h * 4], dw_sum[i][h * 4 + 1],
                                      dw_sum[i][h * 4 + 2], dw_sum[i][h * 4 + 3]};
        sums.store_dw(k0 + i / 4 * 64 + ty * 4 + i % 4, h * 64 + tx * 4, value);
      }
  if (sums.with_db() && blockIdx.x == 0) {
    __syncthreads();
    gradient.gather(dz_tile);
    __syncthreads();
    if (threadIdx.x < BLOCK) sums.store_db(threadIdx.x, Gradient::total(dz_tile, threadIdx.x));
  }
}
