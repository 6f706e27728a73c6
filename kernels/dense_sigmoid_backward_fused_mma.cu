// dense_sigmoid_backward_fused_mma: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz_i, fused, where
// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined; for layers of few outputs, on
// the tensor cores (mma.sync): of 16-bit elements, or of float32 as three planes.
//
// shapes    as dense_sigmoid_backward_fused_ffma
// launch    grid (⌈k / INPUTS⌉, splits), at least 1 each way, block (THREADS)
// shared    (2 × PLANES × (INPUTS × OUTPUTS + ROWS × (OUTPUTS + INPUTS)) + 4 × DX_ROWS × (INPUTS +
//           PADDING)) bytes, dynamic
// requires  compute capability 8.0; m ≤ OUTPUTS; split_length a multiple of ROWS; DX_ROWS is 0 with
//           three planes, else ROWS; the rest as dense_sigmoid_backward_fused_ffma
// traffic   4 n k m flops, seven times as many with three planes; reads x once, w once a split, dy
//           and saved once for every INPUTS of k; writes dx once, dw and db once or as partial sums
// order     dz in float32, of which db is the sum, then rounded to 16 bits or split into planes;
//           dx: 16 terms an instruction, promoted after every 64, as matmul_backward_mma; dw: 16
//           rows an instruction, promoted after every step of ROWS, or of ROWS_FROM_LOGITS; with
//           three planes both are promoted after every 16, see WarpTile::add_planes; db as
//           dense_sigmoid_backward_fused_ffma
#include "fragments.cuh"
#include "layer_rows.cuh"

#if defined(FROM_LOGITS)
constexpr int STEP_ROWS = ROWS_FROM_LOGITS;  // exponentials take registers
#else
constexpr int STEP_ROWS = ROWS;
#endif
constexpr int PROMOTION_INTERVAL = 64;  // terms of dx, with one plane
// Rows of dx in shared memory: none for float32, whose pairs fill whole sectors of 32 bytes.
constexpr int DX_ROWS = sizeof(Element) == 2 ? ROWS : 0;
constexpr int PITCH = INPUTS + PADDING;  // of a row of dx
static_assert(SHARED_BYTES == PLANE_COUNT * (INPUTS * OUTPUTS + ROWS * (OUTPUTS + INPUTS)) *
                                      int(sizeof(Plane)) +
                                  DX_ROWS * PITCH * int(sizeof(float)),
              "w, dz, x and dx");
static_assert(ROWS_FROM_LOGITS <= ROWS, "a step from logits fits");
static_assert(PLANE_COUNT == (sizeof(Element) == 2 ? 1 : 3), "planes without exponents");
static_assert(CHUNK % VECTOR == 0, "a pack lies in one chunk");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "a warp tile for every warp");

// Rows in shared memory, as planes.
template <int HEIGHT, int WIDTH>
struct Tile {
  typedef SwizzledRows<WIDTH> Rows;
  static constexpr int PLANE = HEIGHT * WIDTH;  // elements
  static constexpr int SIZE = PLANE_COUNT * PLANE;
  Plane* p;

  __device__ __forceinline__ Pack<Plane, VECTOR>& pack_at(int plane, int r, int c) const {
    Plane* const at = p + plane * PLANE + Rows::offset(r, c / CHUNK) + c % CHUNK;
    return *reinterpret_cast<Pack<Plane, VECTOR>*>(at);
  }
  // Writes adjacent elements of a row, rounded to 16 bits or split.
  __device__ __forceinline__ void write(int r, int c, const float (&value)[VECTOR]) const {
    Pack<Plane, VECTOR> packs[PLANE_COUNT];
    split_packs(value, packs);
#pragma unroll
    for (int i = 0; i < PLANE_COUNT; ++i) pack_at(i, r, c) = packs[i];
  }
  __device__ __forceinline__ void write(int r, int c, const Pack<float, VECTOR>& pack) const {
    write(r, c, pack.v);
  }
  __device__ __forceinline__ void write(int r, int c, const Pack<Plane, VECTOR>& pack) const {
    pack_at(0, r, c) = pack;
  }
};

typedef Tile<INPUTS, OUTPUTS> Weights;
typedef Tile<STEP_ROWS, OUTPUTS> GradientTile;
typedef Tile<STEP_ROWS, INPUTS> InputTile;
typedef GradientRows<STEP_ROWS, OUTPUTS> Gradient;
typedef InputRows<STEP_ROWS, INPUTS> Inputs;
static_assert(Gradient::THREADS_PER_SUM * OUTPUTS * int(sizeof(float)) <=
                  (GradientTile::SIZE + InputTile::SIZE) * int(sizeof(Plane)),
              "the threads' sums of dz overlay dz and x");

// The accumulators of a warp tile: M × N mma instructions of 16 rows and 8 columns.
template <int M, int N>
struct WarpTile {
  static_assert(N % 2 == 0, "ldmatrix loads B of two mma instructions");
  static constexpr int MMAS_M = M, MMAS_N = N;
  float v[M][N][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[i][j][e] = 0;
  }
  __device__ __forceinline__ void promote(const WarpTile& part) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[i][j][e] += part.v[i][j][e];
  }
  // sum[j] += a b[j]
  static __device__ __forceinline__ void multiply_row(float (&sum)[N][4], const unsigned (&a)[4],
                                                      const unsigned (&b)[N / 2][4]) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const unsigned one[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
      multiply(sum[j], a, one);
    }
  }
  // Adds the product of the s-th 16 terms of both tiles.
  template <typename Left, typename Right>
  __device__ __forceinline__ void add(const Left& left, const Plane* left_tile,
                                      const Right& right, const Plane* right_tile, int s) {
    unsigned a[M][4], b[N / 2][4];
#pragma unroll
    for (int i = 0; i < M; ++i) left.load(left_tile, i, s, a[i]);
#pragma unroll
    for (int j = 0; j < N / 2; ++j) right.load(right_tile, j, s, b[j]);
#pragma unroll
    for (int i = 0; i < M; ++i) multiply_row(v[i], a[i], b);
  }
  // The same from planes, promoted, of the first mmas_m × 16 rows; a branch for each keeps the
  // compiler from loading the fragments of all at once, which would spill. Tensor cores truncate
  // the products of the first planes, and sums may be too short for these errors to cancel: the
  // same instruction with the negated result as its accumulator recovers the truncated bits, except
  // those that the addends have lost. They are added to the products of the other planes.
  template <typename Left, typename Right>
  __device__ __forceinline__ void add_planes(const Left& left, const Plane* left_tile,
                                             int left_plane, const Right& right,
                                             const Plane* right_tile, int right_plane, int s,
                                             int mmas_m) {
    unsigned b[PLANE_COUNT][N / 2][4];
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int j = 0; j < N / 2; ++j) right.load(right_tile + p * right_plane, j, s, b[p][j]);
#pragma unroll
    for (int i = 0; i < M; ++i) {
      if (i >= mmas_m) continue;
      unsigned a[PLANE_COUNT][4];
#pragma unroll
      for (int p = 0; p < PLANE_COUNT; ++p) left.load(left_tile + p * left_plane, i, s, a[p]);
      float first[N][4] = {}, others[N][4];
      multiply_row(first, a[0], b[0]);
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) others[j][e] = -first[j][e];
      multiply_row(others, a[0], b[0]);
#pragma unroll
      for (int weight = PLANE_COUNT - 1; weight > 0; --weight)
#pragma unroll
        for (int p = 0; p <= weight; ++p) multiply_row(others, a[p], b[weight - p]);
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[i][j][e] += first[j][e] + others[j][e];
    }
  }

  // The position of element e of mma (i, j) in the warp tile.
  static __device__ __forceinline__ int row(int i, int e) {
    return i * MMA_M + e / 2 * 8 + threadIdx.x % 32 / 4;
  }
  static __device__ __forceinline__ int column(int j, int e) {
    return j * MMA_N + threadIdx.x % 4 * 2 + e % 2;
  }

  // Rescales sums of products of planes to the values that the planes stand for. Non-finite sums
  // are replaced by exact(row, column), one after the other: this is rare.
  template <typename Exact>
  __device__ __forceinline__ void rescale(const Exact& exact) {
    unsigned long long nonfinite = 0;
    static_assert(M * N * 4 <= 64, "a bit for each sum");
#pragma unroll
    for (int at = 0; at < M * N * 4; ++at) {
      float& sum = v[at / 4 / N][at / 4 % N][at % 4];
      if (!is_finite(sum)) nonfinite |= 1ull << at;
      sum *= UNSHIFT * UNSHIFT;
    }
#pragma unroll 1
    for (int one = 0; nonfinite; ++one, nonfinite >>= 1) {
      if (!(nonfinite & 1)) continue;
      const float found = exact(row(one / 4 / N, one % 4), column(one / 4 % N, one % 4));
#pragma unroll
      for (int at = 0; at < M * N * 4; ++at)
        if (at == one) v[at / 4 / N][at / 4 % N][at % 4] = found;
    }
  }
};

typedef WarpTile<STEP_ROWS / WARPS_M / MMA_M, INPUTS / WARPS_N / MMA_N> DxWarpTile;
typedef WarpTile<INPUTS / WARPS_M / MMA_M, OUTPUTS / WARPS_N / MMA_N> DwWarpTile;

// Elements by FFMA, for those that are not finite on the tensor cores; 0 beyond an end.
struct Layer {
  Matrix dy, saved, x, w;
  Offset k, m;

  static __device__ __forceinline__ float at(const Matrix& matrix, Offset row, Offset column) {
    return widen(matrix.p[row * matrix.row_stride + column * matrix.column_stride]);
  }
  __device__ __forceinline__ float dz(Offset row, Offset j) const {
    return sigmoid_gradient(at(dy, row, j), at(saved, row, j));
  }
  __device__ __forceinline__ float dx(Offset row, Offset column, Offset last) const {
    float sum = 0;
    if (row < last && column < k)
#pragma unroll 1
      for (Offset j = 0; j < m && sum == sum; ++j)  // a NaN stays a NaN
        sum = multiply_add(dz(row, j), at(w, column, j), sum);
    return sum;
  }
  __device__ __forceinline__ float dw(Offset row, Offset column, Offset first, Offset last) const {
    float sum = 0;
    if (row < k && column < m)
#pragma unroll 1
      for (Offset i = first; i < last && sum == sum; ++i)
        sum = multiply_add(at(x, i, row), dz(i, column), sum);
    return sum;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS_PER_SM)
dense_sigmoid_backward_fused_mma(
    const Element* __restrict__ dy, Offset dy_n, Offset dy_m, int dy_packed,
    const Element* __restrict__ saved, Offset saved_n, Offset saved_m, int saved_packed,
    const Element* __restrict__ x, Offset x_n, Offset x_k, int x_packed,
    const Element* __restrict__ w, Offset w_k, Offset w_m, int w_packed, Element* dx, Offset dx_n,
    Offset dx_k, int dx_packed, Element* dw, Offset dw_k, Offset dw_m, int dw_packed,
    Accumulator* dw_partial, Element* db, Offset db_stride, Accumulator* db_partial,
    int accumulate_dx, int accumulate_dw, int accumulate_db, Offset n, Offset k, Offset m,
    Offset split_length) {
  extern __shared__ __align__(128) unsigned char shared[];
  const Weights w_tile{reinterpret_cast<Plane*>(shared)};
  const GradientTile dz_tile{w_tile.p + Weights::SIZE};
  const InputTile x_tile{dz_tile.p + GradientTile::SIZE};
  float* const dx_tile = reinterpret_cast<float*>(x_tile.p + InputTile::SIZE);  // (DX_ROWS, PITCH)
  const Matrix of_dy{dy, dy_n, dy_m, dy_packed}, of_saved{saved, saved_n, saved_m, saved_packed};
  const Matrix of_x{x, x_n, x_k, x_packed}, of_w{w, w_k, w_m, w_packed};
  const LayerSums sums{dw, dw_k, dw_m, dw_packed, dw_partial, db, db_stride, db_partial,
                       accumulate_dw, accumulate_db, k, m};
  const Offset k0 = Offset(blockIdx.x) * INPUTS;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < n ? first + split_length : n;

  const Layer layer{of_dy, of_saved, of_x, of_w, k, m};
  const int warp_m = threadIdx.x / 32 / WARPS_N, warp_n = threadIdx.x / 32 % WARPS_N;
  const int dx_row = warp_m * (STEP_ROWS / WARPS_M), dx_column = warp_n * (INPUTS / WARPS_N);
  const int dw_row = warp_m * (INPUTS / WARPS_M), dw_column = warp_n * (OUTPUTS / WARPS_N);
  const FragmentReader<true, OUTPUTS, 3> dz_of_dx(dx_row);
  const FragmentReader<true, OUTPUTS, 4> w_of_dx(dx_column);
  const FragmentReader<false, INPUTS, 3> x_of_dw(dw_row);
  const FragmentReader<false, OUTPUTS, 4> dz_of_dw(dw_column);

  typedef PackLayout<INPUTS, OUTPUTS> Layout;
  if (dx)
#pragma unroll 1
    for (int r = Layout::row(0); r < INPUTS; r += Layout::ROW_STEP)
      w_tile.write(r, Layout::column(), of_w.read(k0 + r, k, Layout::column(), m));

  const Offset inputs_left = k - k0 - dw_row;  // of the warp tile of dw
  const int dw_mmas =
      inputs_left < INPUTS ? int(inputs_left + MMA_M - 1) / MMA_M : DwWarpTile::MMAS_M;
  DwWarpTile dw_sum;
  dw_sum.clear();
  Gradient gradient;
  Inputs inputs;
#pragma unroll 1
  for (Offset row0 = first;; row0 += STEP_ROWS) {  // loads from row0 on, multiplies rows before
    const bool some = row0 > first;
    gradient.load(of_dy, of_saved, row0, last, m);
    inputs.load(of_x, row0, sums.with_dw() ? last : 0, k0, k);
    if (some && dx) {
      DxWarpTile sum;
      sum.clear();
      if (PLANE_COUNT > 1) {
#pragma unroll 1
        for (int s = 0; s < OUTPUTS / MMA_K; ++s)
          sum.add_planes(dz_of_dx, dz_tile.p, GradientTile::PLANE, w_of_dx, w_tile.p,
                         Weights::PLANE, s, DxWarpTile::MMAS_M);
        sum.rescale([=](int r, int c) {
          return layer.dx(row0 - STEP_ROWS + dx_row + r, k0 + dx_column + c, last);
        });
      } else {
#pragma unroll 1
        for (int q = 0; q < OUTPUTS; q += PROMOTION_INTERVAL) {
          DxWarpTile part;
          part.clear();
#pragma unroll
          for (int s = 0; s < PROMOTION_INTERVAL / MMA_K; ++s)
            part.add(dz_of_dx, dz_tile.p, w_of_dx, w_tile.p, q / MMA_K + s);
          sum.promote(part);
        }
      }
#pragma unroll
      for (int i = 0; i < DxWarpTile::MMAS_M; ++i)
#pragma unroll
        for (int j = 0; j < DxWarpTile::MMAS_N; ++j)
#pragma unroll
          for (int e = 0; e < 4; e += 2) {  // elements 2 and 3 are eight rows further
            const int r = dx_row + DxWarpTile::row(i, e), c = dx_column + DxWarpTile::column(j, e);
            const Pack<float, 2> pair = {sum.v[i][j][e], sum.v[i][j][e + 1]};
            if (DX_ROWS == 0) {
              const Offset row = row0 - STEP_ROWS + r;
              if (row < last)
                store_row(dx + row * dx_n, dx_k, k0 + c, k, dx_packed, accumulate_dx, pair.v);
            } else {
              *reinterpret_cast<Pack<float, 2>*>(dx_tile + r * PITCH + c) = pair;
            }
          }
    }
    if (some && sums.with_dw()) {
      if (PLANE_COUNT > 1) {
#pragma unroll 1
        for (int s = 0; s < STEP_ROWS / MMA_K; ++s)
          dw_sum.add_planes(x_of_dw, x_tile.p, InputTile::PLANE, dz_of_dw, dz_tile.p,
                            GradientTile::PLANE, s, dw_mmas);
      } else {
        DwWarpTile part;
        part.clear();
#pragma unroll 1
        for (int s = 0; s < STEP_ROWS / MMA_K; ++s)
          part.add(x_of_dw, x_tile.p, dz_of_dw, dz_tile.p, s);
        dw_sum.promote(part);
      }
    }
    __syncthreads();  // no thread reads the rows before, and their dx is in its tile
    if (DX_ROWS > 0 && some && dx)
#pragma unroll 1
      for (int quad = threadIdx.x; quad < STEP_ROWS * INPUTS / 4; quad += THREADS) {
        const int r = quad / (INPUTS / 4), c = quad % (INPUTS / 4) * 4;
        const auto pack = *reinterpret_cast<const Pack<float, 4>*>(dx_tile + r * PITCH + c);
        const Offset row = row0 - STEP_ROWS + r;
        if (row < last)
          store_row(dx + row * dx_n, dx_k, k0 + c, k, dx_packed, accumulate_dx, pack.v);
      }
    if (row0 >= last) break;
    gradient.take(of_dy, of_saved, row0, last, m,
                  [=](int r, int c, const Accumulator (&value)[VECTOR]) {
                    dz_tile.write(r, c, value);
                  });
    if (sums.with_dw())
      inputs.take(of_x, row0, last, k0, k, [=](int r, int c, const Pack<Element, VECTOR>& pack) {
        x_tile.write(r, c, pack);
      });
    __syncthreads();
  }

  if (PLANE_COUNT > 1 && sums.with_dw())
    dw_sum.rescale([=](int r, int c) {
      return layer.dw(k0 + dw_row + r, dw_column + c, first, last);
    });
  if (sums.with_dw())
#pragma unroll
    for (int i = 0; i < DwWarpTile::MMAS_M; ++i)
#pragma unroll
      for (int j = 0; j < DwWarpTile::MMAS_N; ++j)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          const Accumulator value[2] = {dw_sum.v[i][j][e], dw_sum.v[i][j][e + 1]};
          sums.store_dw(k0 + dw_row + DwWarpTile::row(i, e), dw_column + DwWarpTile::column(j, e),
                        value);
        }
  if (sums.with_db() && blockIdx.x == 0) {  // dz is free since the last barrier
    Accumulator* const smem = reinterpret_cast<Accumulator*>(dz_tile.p);
    gradient.gather(smem);
    __syncthreads();
    if (threadIdx.x < OUTPUTS) sums.store_db(threadIdx.x, Gradient::total(smem, threadIdx.x));
  }
}
