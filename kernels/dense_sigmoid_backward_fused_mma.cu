// dense_sigmoid_backward_fused_mma: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz_i in one launch, where
// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined; for layers of few outputs, on
// the tensor cores: of 16-bit elements, or of float32 from three planes.
//
// shapes    as dense_sigmoid_backward_fused_ffma
// launch    grid (⌈k / INPUTS⌉, splits), at least 1 each way, block (THREADS)
// shared    (2 × PLANES × (INPUTS × OUTPUTS + ROWS × (OUTPUTS + INPUTS)) + 4 × DX_ROWS × (INPUTS +
//           PADDING)) bytes, dynamic
// requires  compute capability 8.0; m ≤ OUTPUTS; split_length a multiple of ROWS; DX_ROWS is 0 with
//           three planes, else ROWS; the rest as dense_sigmoid_backward_fused_ffma
// traffic   4 n k m flops, seven times as many with three planes; reads x once, w once a split, dy
//           and saved once for every INPUTS of k; writes dx once, dw and db once or as partial sums
// order     dz in float32, of which db is the sum, then rounded to 16 bits or split into planes; dx:
//           16 terms at once on tensor cores, promoted after every 64, as matmul_backward_mma; dw:
//           16 rows at once, promoted after every step of ROWS, or of ROWS_FROM_LOGITS; from three
//           planes both are promoted after every 16, see Share::add_planes; db as
//           dense_sigmoid_backward_fused_ffma
#include "fragments.cuh"
#include "layer_rows.cuh"

#if defined(FROM_LOGITS)
constexpr int STEP_ROWS = ROWS_FROM_LOGITS;      // of a step: exponentials take registers
#else
constexpr int STEP_ROWS = ROWS;                  // as many as there is room for
#endif
constexpr int PROMOTED = 64;                     // terms of dx, of one plane, after which a sum is
// Pairs of float32 fill whole sectors of 32 bytes; 16-bit ones go by way of shared memory, in fours.
constexpr int DX_ROWS = sizeof(Element) == 2 ? ROWS : 0;  // that there is room for
constexpr int PITCH = INPUTS + PADDING;          // of a row of dx there
static_assert(SHARED_BYTES == PLANE_COUNT * (INPUTS * OUTPUTS + ROWS * (OUTPUTS + INPUTS)) *
                                      int(sizeof(Plane)) +
                                  DX_ROWS * PITCH * int(sizeof(float)),
              "w, dz, x and dx");
static_assert(ROWS_FROM_LOGITS <= ROWS, "there is room for a step from logits");
static_assert(PLANE_COUNT == (sizeof(Element) == 2 ? 1 : 3), "planes without exponents");
static_assert(CHUNK % VECTOR == 0, "a pack lies in one chunk");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "every warp has a share");

// Rows in shared memory, as planes.
template <int HEIGHT, int WIDTH>
struct Tile {
  typedef ChunkedRows<WIDTH> Rows;
  static constexpr int PLANE = HEIGHT * WIDTH;  // elements
  static constexpr int SIZE = PLANE_COUNT * PLANE;
  Plane* p;

  __device__ __forceinline__ Pack<Plane, VECTOR>& pack_at(int plane, int r, int c) const {
    Plane* const at = p + plane * PLANE + Rows::place(r, c / CHUNK) + c % CHUNK;
    return *reinterpret_cast<Pack<Plane, VECTOR>*>(at);
  }
  // Writes neighbouring elements of a row, rounded to 16 bits or split.
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
static_assert(Gradient::LANES * OUTPUTS * int(sizeof(float)) <=
                  (GradientTile::SIZE + InputTile::SIZE) * int(sizeof(Plane)),
              "the threads' sums of dz overlay dz and x");

// A warp's share of a product, in products of one instruction: M pieces of 16 rows, N of 8 columns.
template <int M, int N>
struct Share {
  static_assert(N % 2 == 0, "ldmatrix brings the right operand of two products");
  static constexpr int ROWS_16 = M, COLUMNS_8 = N;
  float v[M][N][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[i][j][e] = 0;
  }
  __device__ __forceinline__ void promote(const Share& part) {
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
  // Adds the product of 16 terms, piece s of both tiles along the contraction.
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
  // The same from planes, promoted, of the first `pieces` rows of pieces; a branch for each keeps
  // the compiler from bringing the fragments of all at once, which takes more registers than there
  // are. Tensor cores cut off the last bits of what the first planes make, and sums may be too short
  // for such errors to cancel: multiplied once more, onto the negative of it, they make what was cut
  // off, but for what the addends have lost. It is added to the products of the other planes.
  template <typename Left, typename Right>
  __device__ __forceinline__ void add_planes(const Left& left, const Plane* left_tile,
                                             int left_plane, const Right& right,
                                             const Plane* right_tile, int right_plane, int s,
                                             int pieces) {
    unsigned b[PLANE_COUNT][N / 2][4];
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int j = 0; j < N / 2; ++j) right.load(right_tile + p * right_plane, j, s, b[p][j]);
#pragma unroll
    for (int i = 0; i < M; ++i) {
      if (i >= pieces) continue;
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

  // Where element e of a piece lies, beside the first element of the share.
  static __device__ __forceinline__ int row(int i, int e) {
    return i * MMA_M + e / 2 * 8 + threadIdx.x % 32 / 4;
  }
  static __device__ __forceinline__ int column(int j, int e) {
    return j * MMA_N + threadIdx.x % 4 * 2 + e % 2;
  }

  // Brings sums of products of planes to the scale of the values behind them. Those that are not
  // finite are replaced by plain(row, column), one after the other: this is rare.
  template <typename Plain>
  __device__ __forceinline__ void finish(const Plain& plain) {
    unsigned long long broken = 0;
    static_assert(M * N * 4 <= 64, "a bit for each sum");
#pragma unroll
    for (int at = 0; at < M * N * 4; ++at) {
      float& sum = v[at / 4 / N][at / 4 % N][at % 4];
      if (!is_finite(sum)) broken |= 1ull << at;
      sum *= UNSHIFT * UNSHIFT;
    }
#pragma unroll 1
    for (int one = 0; broken; ++one, broken >>= 1) {
      if (!(broken & 1)) continue;
      const float found = plain(row(one / 4 / N, one % 4), column(one / 4 % N, one % 4));
#pragma unroll
      for (int at = 0; at < M * N * 4; ++at)
        if (at == one) v[at / 4 / N][at / 4 % N][at % 4] = found;
    }
  }
};

typedef Share<STEP_ROWS / WARPS_M / MMA_M, INPUTS / WARPS_N / MMA_N> DxShare;
typedef Share<INPUTS / WARPS_M / MMA_M, OUTPUTS / WARPS_N / MMA_N> DwShare;

// Elements by plain multiply-adds, for what is not finite on the tensor cores; 0 beyond an end.
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
      for (Offset j = 0; j < m && sum == sum; ++j)  // a NaN stays one
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

  typedef Strip<INPUTS, OUTPUTS> Part;
  if (dx)
#pragma unroll 1
    for (int r = Part::row(0); r < INPUTS; r += Part::ROW_STEP)
      w_tile.write(r, Part::column(), of_w.read(k0 + r, k, Part::column(), m));

  const Offset inputs_left = k - k0 - dw_row;  // of the warp's share of dw
  const int dw_pieces =
      inputs_left < INPUTS ? int(inputs_left + MMA_M - 1) / MMA_M : DwShare::ROWS_16;
  DwShare dw_sum;
  dw_sum.clear();
  Gradient gradient;
  Inputs inputs;
#pragma unroll 1
  for (Offset row0 = first;; row0 += STEP_ROWS) {  // brings rows from row0 on, multiplies those before
    const bool some = row0 > first;
    gradient.load(of_dy, of_saved, row0, last, m);
    inputs.load(of_x, row0, sums.with_dw() ? last : 0, k0, k);
    if (some && dx) {
      DxShare sum;
      sum.clear();
      if (PLANE_COUNT > 1) {
#pragma unroll 1
        for (int s = 0; s < OUTPUTS / MMA_K; ++s)
          sum.add_planes(dz_of_dx, dz_tile.p, GradientTile::PLANE, w_of_dx, w_tile.p,
                         Weights::PLANE, s, DxShare::ROWS_16);
        sum.finish([=](int r, int c) {
          return layer.dx(row0 - STEP_ROWS + dx_row + r, k0 + dx_column + c, last);
        });
      } else {
#pragma unroll 1
        for (int q = 0; q < OUTPUTS; q += PROMOTED) {
          DxShare part;
          part.clear();
#pragma unroll
          for (int s = 0; s < PROMOTED / MMA_K; ++s)
            part.add(dz_of_dx, dz_tile.p, w_of_dx, w_tile.p, q / MMA_K + s);
          sum.promote(part);
        }
      }
#pragma unroll
      for (int i = 0; i < DxShare::ROWS_16; ++i)
#pragma unroll
        for (int j = 0; j < DxShare::COLUMNS_8; ++j)
#pragma unroll
          for (int e = 0; e < 4; e += 2) {  // elements 2 and 3 are eight rows below
            const int r = dx_row + DxShare::row(i, e), c = dx_column + DxShare::column(j, e);
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
                            GradientTile::PLANE, s, dw_pieces);
      } else {
        DwShare part;
        part.clear();
#pragma unroll 1
        for (int s = 0; s < STEP_ROWS / MMA_K; ++s)
          part.add(x_of_dw, x_tile.p, dz_of_dw, dz_tile.p, s);
        dw_sum.promote(part);
      }
    }
    __syncthreads();  // nobody reads the rows before, and their dx is in its tile
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
    dw_sum.finish([=](int r, int c) {
      return layer.dw(k0 + dw_row + r, dw_column + c, first, last);
    });
  if (sums.with_dw())
#pragma unroll
    for (int i = 0; i < DwShare::ROWS_16; ++i)
#pragma unroll
      for (int j = 0; j < DwShare::COLUMNS_8; ++j)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          const Accumulator value[2] = {dw_sum.v[i][j][e], dw_sum.v[i][j][e + 1]};
          sums.store_dw(k0 + dw_row + DwShare::row(i, e), dw_column + DwShare::column(j, e),
                        value);
        }
  if (sums.with_db() && blockIdx.x == 0) {  // the last barrier lets dz go
    Accumulator* const lanes = reinterpret_cast<Accumulator*>(dz_tile.p);
    gradient.gather(lanes);
    __syncthreads();
    if (threadIdx.x < OUTPUTS) sums.store_db(threadIdx.x, Gradient::total(lanes, threadIdx.x));
  }
}
