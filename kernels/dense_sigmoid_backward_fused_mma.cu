// dense_sigmoid_backward_fused_mma: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz_i in one launch, where
// dz = dy y (1 − y), or dy σ(z) σ(−z) where FROM_LOGITS is defined; for layers of few outputs and
// 16-bit elements, on the tensor cores.
//
// shapes    as dense_sigmoid_backward_fused_ffma
// launch    grid (⌈k / INPUTS⌉, splits), at least 1 each way, block (256)
// shared    (2 × INPUTS × TILE + 2 × ROWS × (TILE + INPUTS) + 4 × ROWS × (INPUTS + 8)) bytes,
//           dynamic
// requires  compute capability 8.0; m ≤ TILE, of 64, 128 or 256; INPUTS is 128 for a TILE of 128,
//           else 64; ROWS is 32 for a TILE of 256, else 64; the rest as
//           dense_sigmoid_backward_fused_ffma
// traffic   4 n k m flops; reads x once, w once a split, dy and saved once for every INPUTS of k;
//           writes dx once, dw and db once or as partial sums
// order     dz in float32, of which db is the sum, then rounded to 16 bits; dx: 16 terms at once on
//           tensor cores, promoted after every 64, as matmul_backward_mma; dw: 16 rows at once,
//           promoted after every step of ROWS, or of half as many from logits where TILE is 64;
//           db as dense_sigmoid_backward_fused_ffma
#include "fragments.cuh"
#include "layer_rows.cuh"

#if !defined(TILE)
#define TILE 64
#endif

constexpr int OUTPUTS = TILE;                    // that a block has room for
constexpr int INPUTS = TILE == 128 ? 128 : 64;   // of a block
constexpr int ROWS = TILE == 256 ? 32 : 64;      // that there is room for
#if defined(FROM_LOGITS) && TILE == 64
constexpr int STEP_ROWS = 32;                    // of a step: exponentials take registers
#else
constexpr int STEP_ROWS = ROWS;
#endif
constexpr int WARPS_M = 2, WARPS_N = 4;          // that share dx of a step, and dw
constexpr int PROMOTED = 64;                     // terms of dx after which a sum is promoted
constexpr int BLOCKS_A_SM = TILE > 64 ? 1 : 2;
constexpr int PITCH = INPUTS + 8;                // of a row of dx in shared memory
constexpr int SHARED_BYTES = (INPUTS * OUTPUTS + ROWS * (OUTPUTS + INPUTS)) * int(sizeof(Element)) +
                             ROWS * PITCH * int(sizeof(float));
static_assert(sizeof(Element) == 2 && VECTOR == CHUNK, "16-bit elements, in chunks of 16 bytes");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "every warp has a share");

typedef ChunkedRows<INPUTS> InputChunks;
typedef ChunkedRows<OUTPUTS> OutputChunks;
typedef GradientRows<STEP_ROWS, OUTPUTS> Gradient;
typedef InputRows<STEP_ROWS, INPUTS> Inputs;
static_assert(Gradient::LANES * OUTPUTS * int(sizeof(float)) <=
                  STEP_ROWS * (OUTPUTS + INPUTS) * int(sizeof(Element)),
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
  // Adds the product of 16 terms, piece s of both tiles along the contraction.
  template <typename Left, typename Right>
  __device__ __forceinline__ void add(const Left& left, const Element* left_tile,
                                      const Right& right, const Element* right_tile, int s) {
    unsigned a[M][4], b[N / 2][4];
#pragma unroll
    for (int i = 0; i < M; ++i) left.load(left_tile, i, s, a[i]);
#pragma unroll
    for (int j = 0; j < N / 2; ++j) right.load(right_tile, j, s, b[j]);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const unsigned one[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        multiply(v[i][j], a[i], one);
      }
  }
};

typedef Share<STEP_ROWS / WARPS_M / MMA_M, INPUTS / WARPS_N / MMA_N> DxShare;
typedef Share<INPUTS / WARPS_M / MMA_M, OUTPUTS / WARPS_N / MMA_N> DwShare;

__device__ __forceinline__ Pack<Element, CHUNK>& chunk_at(Element* p) {
  return *reinterpret_cast<Pack<Element, CHUNK>*>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_A_SM)
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
  Element* const w_tile = reinterpret_cast<Element*>(shared);  // (INPUTS, OUTPUTS)
  Element* const dz_tile = w_tile + INPUTS * OUTPUTS;          // (STEP_ROWS, OUTPUTS)
  Element* const x_tile = dz_tile + STEP_ROWS * OUTPUTS;            // (STEP_ROWS, INPUTS)
  float* const dx_tile = reinterpret_cast<float*>(x_tile + STEP_ROWS * INPUTS);  // (STEP_ROWS, PITCH)
  const Matrix of_dy{dy, dy_n, dy_m, dy_packed}, of_saved{saved, saved_n, saved_m, saved_packed};
  const Matrix of_x{x, x_n, x_k, x_packed}, of_w{w, w_k, w_m, w_packed};
  const LayerSums sums{dw, dw_k, dw_m, dw_packed, dw_partial, db, db_stride, db_partial,
                       accumulate_dw, accumulate_db, k, m};
  const Offset k0 = Offset(blockIdx.x) * INPUTS;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < n ? first + split_length : n;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp / WARPS_N, warp_n = warp % WARPS_N;
  const FragmentReader<true, OUTPUTS, 3> dz_of_dx(warp_m * (STEP_ROWS / WARPS_M));
  const FragmentReader<true, OUTPUTS, 4> w_of_dx(warp_n * (INPUTS / WARPS_N));
  const FragmentReader<false, INPUTS, 3> x_of_dw(warp_m * (INPUTS / WARPS_M));
  const FragmentReader<false, OUTPUTS, 4> dz_of_dw(warp_n * (OUTPUTS / WARPS_N));

  typedef Strip<INPUTS, OUTPUTS> Weights;
  if (dx)
#pragma unroll 1
    for (int r = Weights::row(0); r < INPUTS; r += Weights::ROW_STEP)
      chunk_at(w_tile + OutputChunks::place(r, Weights::column() / CHUNK)) =
          of_w.read(k0 + r, k, Weights::column(), m);

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
#pragma unroll 1
      for (int q = 0; q < OUTPUTS; q += PROMOTED) {
        DxShare part;
        part.clear();
#pragma unroll
        for (int s = 0; s < PROMOTED / MMA_K; ++s)
          part.add(dz_of_dx, dz_tile, w_of_dx, w_tile, q / MMA_K + s);
        sum.promote(part);
      }
#pragma unroll
      for (int i = 0; i < DxShare::ROWS_16; ++i)
#pragma unroll
        for (int j = 0; j < DxShare::COLUMNS_8; ++j)
#pragma unroll
          for (int e = 0; e < 4; e += 2) {  // elements 2 and 3 are eight rows below
            const int r = warp_m * (STEP_ROWS / WARPS_M) + i * MMA_M + e / 2 * 8 + lane / 4;
            const int c = warp_n * (INPUTS / WARPS_N) + j * MMA_N + lane % 4 * 2;
            const Pack<float, 2> pair = {sum.v[i][j][e], sum.v[i][j][e + 1]};
            *reinterpret_cast<Pack<float, 2>*>(dx_tile + r * PITCH + c) = pair;
          }
    }
    if (some && sums.with_dw()) {
      DwShare part;
      part.clear();
#pragma unroll 1
      for (int s = 0; s < STEP_ROWS / MMA_K; ++s) part.add(x_of_dw, x_tile, dz_of_dw, dz_tile, s);
      dw_sum.promote(part);
    }
    __syncthreads();  // nobody reads the rows before, and their dx is in its tile
    if (some && dx)
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
                    Pack<Element, VECTOR> rounded;
#pragma unroll
                    for (int e = 0; e < VECTOR; ++e)
                      rounded.v[e] = Narrow<Element>::from(value[e]);
                    chunk_at(dz_tile + OutputChunks::place(r, c / CHUNK)) = rounded;
                  });
    if (sums.with_dw())
      inputs.take(of_x, row0, last, k0, k, [=](int r, int c, const Pack<Element, VECTOR>& pack) {
        chunk_at(x_tile + InputChunks::place(r, c / CHUNK)) = pack;
      });
    __syncthreads();
  }

  if (sums.with_dw())
#pragma unroll
    for (int i = 0; i < DwShare::ROWS_16; ++i)
#pragma unroll
      for (int j = 0; j < DwShare::COLUMNS_8; ++j)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          const Accumulator value[2] = {dw_sum.v[i][j][e], dw_sum.v[i][j][e + 1]};
          sums.store_dw(
              k0 + warp_m * (INPUTS / WARPS_M) + i * MMA_M + e / 2 * 8 + lane / 4,
              warp_n * (OUTPUTS / WARPS_N) + j * MMA_N + lane % 4 * 2, value);
        }
  if (sums.with_db() && blockIdx.x == 0) {  // the last barrier lets dz go
    Accumulator* const lanes = reinterpret_cast<Accumulator*>(dz_tile);
    gradient.gather(lanes);
    __syncthreads();
    if (threadIdx.x < OUTPUTS) sums.store_db(threadIdx.x, Gradient::total(lanes, threadIdx.x));
  }
}
