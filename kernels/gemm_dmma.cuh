// GEMM C = A B on the FP64 tensor cores (DMMA), for operands of any strides.
//
// WARPS_M × WARPS_N warps compute a BLOCK × BLOCK tile of C in steps of BLOCK_K. A multistage
// pipeline (cp.async) holds STAGES tiles of A and B in shared memory.
//
// FP64 tensor cores round as IEEE fused multiply-adds do. An element of C is one sum over K (of one
// split of it) in ascending order: its bits depend neither on the tile size, nor on its position in
// the tile, nor on the strides of A and B.
#pragma once
#include "ptx.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int BLOCK = BLOCK_M;                             // BLOCK_N
constexpr int FRAGMENT = 16;                               // indices of M or N: two halves of 8
constexpr int FRAGMENTS_M = BLOCK / WARPS_M / FRAGMENT;    // of a warp tile
constexpr int FRAGMENTS_N = BLOCK / WARPS_N / FRAGMENT;
constexpr int MMA_K = 4, MMAS_K = BLOCK_K / MMA_K;
constexpr int OPERAND_TILE = BLOCK * (BLOCK_K + PADDING);  // elements of an operand in a stage
constexpr int STAGE = 2 * OPERAND_TILE;
static_assert(sizeof(Element) == 8, "elements are doubles");
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(BLOCK == 64 || BLOCK == 128, "a warp tile is 32 × 16 or 64 × 32");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "a warp tile for every warp");
static_assert(BLOCK * BLOCK_K == 2 * THREADS * FRAGMENTS_M, "a thread copies a pack a fragment");
static_assert(SHARED_BYTES == STAGES * STAGE * int(sizeof(Element)), "the stages are all there is");

// A tile of an operand in shared memory, in its order in global memory: rows are indices of M or N
// if K-major, of K if MN-major. Half a warp reads four adjacent indices of K times indices 0, 1, 4
// and 5 of M or N: rows are padded and odd ones shifted to avoid conflicts of banks of 8 bytes.
template <bool K_MAJOR>
struct Tile {
  static constexpr int ROWS = K_MAJOR ? BLOCK : BLOCK_K;
  static constexpr int COLUMNS = K_MAJOR ? BLOCK_K : BLOCK;
  static constexpr int PITCH = COLUMNS + (K_MAJOR ? PADDING : 4);
  static constexpr int SHIFT = K_MAJOR ? 2 : -2;  // rows 0, 1, 4, 5 begin at banks 0, 4, 8, 12,
                                                  // or rows 0 to 3 at banks 0, 2, 8, 10
  static_assert(PITCH % 16 == (K_MAJOR ? 2 : 4), "no bank conflicts");
  static_assert(ROWS * PITCH <= OPERAND_TILE, "the tile fits");

  static __device__ __forceinline__ int offset(int row, int column) {
    return row * PITCH + row % 2 * SHIFT + column;
  }
};

// A (M, K), or the transpose of B: (N, K). Packs of two elements are along K if K_MAJOR, along M or
// N if not.
template <bool K_MAJOR>
struct Operand {
  const Element* p;
  Offset mn_stride, k_stride;
  int packed;  // the stride along packs is 1, and every second element is 16-byte aligned
};

#if defined(LEFT_MN_MAJOR)
typedef Operand<false> Left;
#else
typedef Operand<true> Left;
#endif
#if defined(RIGHT_MN_MAJOR)
typedef Operand<false> Right;
#else
typedef Operand<true> Right;
#endif

// A thread's cp.async of every tile of an operand, FRAGMENTS_M packs or twice as many elements,
// zero-filled beyond the ends. k_left terms of K are left, none if negative.
template <bool K_MAJOR>
struct TileCopy {
  typedef Tile<K_MAJOR> T;
  static constexpr int ROW_STEP = THREADS / T::COLUMNS;  // rows between a thread's elements
  static_assert(ROW_STEP % 2 == 0, "all rows of a thread are shifted alike");

  const Element* from;
  Offset row_stride, step;  // step: to the next tile
  int packed;
  int kk, to;    // the thread's first element in a tile
  int mn_left;  // indices of M or N from there on

  __device__ __forceinline__ TileCopy(const Operand<K_MAJOR>& operand, Offset mn0, Offset k0,
                                      Offset mn_end)
      : row_stride(K_MAJOR ? operand.mn_stride : operand.k_stride),
        step(BLOCK_K * operand.k_stride),
        packed(operand.packed) {
    const int element = packed ? 2 * threadIdx.x : threadIdx.x;
    const int row = element / T::COLUMNS, column = element % T::COLUMNS;
    const Offset mn = mn0 + (K_MAJOR ? row : column);
    kk = K_MAJOR ? column : row;
    to = T::offset(row, column);
    from = operand.p + mn * operand.mn_stride + (k0 + kk) * operand.k_stride;
    mn_left = mn_end - mn < BLOCK ? int(mn_end - mn) : BLOCK;
  }

  // Issues the copy of one pack, if `packed`.
  __device__ __forceinline__ void start_pack(Element* tile, int number, int k_left) const {
    if (!packed) return;
    const int rows_left = K_MAJOR ? mn_left : k_left - kk;
    const int columns_left = K_MAJOR ? k_left - kk : mn_left;
    const int row = number * 2 * ROW_STEP;
    const int bytes = columns_left > 1 ? 16 : columns_left == 1 ? 8 : 0;
    ptx::cp_async16(tile + to + row * T::PITCH, from + row * row_stride,
                    row < rows_left ? bytes : 0);
  }
  // Issues the copies of single elements, if not `packed`. Unrolled, their addresses would take the
  // registers of the accumulators.
  __device__ __forceinline__ void start_elements(Element* tile, int k_left) const {
    if (packed) return;
    const int rows_left = K_MAJOR ? mn_left : k_left - kk;
    const int columns_left = K_MAJOR ? k_left - kk : mn_left;
#pragma unroll 1
    for (int row = 0; row < T::ROWS; row += ROW_STEP)
      ptx::cp_async8(tile + to + row * T::PITCH, from + row * row_stride,
                     row < rows_left && columns_left > 0 ? 8 : 0);
  }
};

// A lane's elements of the fragments of a warp tile; mn is its first index of M or N.
template <bool K_MAJOR>
struct Reader {
  typedef Tile<K_MAJOR> T;
  int from;

  __device__ __forceinline__ explicit Reader(int mn) {
    const int kk = threadIdx.x % 4;
    from = K_MAJOR ? T::offset(mn, kk) : T::offset(kk, mn);
  }
  // The element of a half of a fragment in the s-th MMA_K of K.
  __device__ __forceinline__ Element load(const Element* tile, int fragment, int half,
                                          int s) const {
    const int mn = fragment * FRAGMENT + half * 2, kk = s * MMA_K;  // an even number of rows
    return tile[from + (K_MAJOR ? mn * T::PITCH + kk : kk * T::PITCH + mn)];
  }
};

// sum += a b, of a fragment of A and the halves of fragments of B. Only compute capability 9.0 has
// m16n8k16; elsewhere it would be a chain of m8n8k4.
__device__ __forceinline__ void multiply(Accumulator (&sum)[2 * FRAGMENTS_N][2][2],
                                         const Element (&a)[MMAS_K][2],
                                         const Element (&b)[2 * FRAGMENTS_N][MMAS_K]) {
#if __CUDA_ARCH__ == 900
#pragma unroll
  for (int j = 0; j < 2 * FRAGMENTS_N; ++j) ptx::mma_m16n8k16_f64(sum[j], a, b[j]);
#else
#pragma unroll
  for (int s = 0; s < MMAS_K; ++s)
#pragma unroll
    for (int j = 0; j < 2 * FRAGMENTS_N; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        ptx::mma_m8n8k4_f64(sum[j][half], a[s][half], b[j][s]);
#endif
}

// epilogue(column, value) is applied to every four adjacent elements of a row of C.
template <bool LEFT_K_MAJOR, bool RIGHT_K_MAJOR, typename T, typename Epilogue>
__device__ __forceinline__ void gemm_dmma(const Operand<LEFT_K_MAJOR>& left,
                                          const Operand<RIGHT_K_MAJOR>& right,
                                          const Target<T>& target, Offset M, Offset N, Offset K,
                                          Offset split_length, const Epilogue& epilogue) {
  extern __shared__ __align__(16) Element stages[];
  Offset row0, column0;
  tile_origin<BLOCK>(M, N, row0, column0);
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < K ? first + split_length : K;

  // Row or column g of a half of a fragment is its index g / 2 · 4 + g % 2 of M or N, plus two in
  // the second half: a lane's sums of both halves are four adjacent elements of a row of C.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / WARPS_N * (BLOCK / WARPS_M);     // [0, BLOCK)
  const int warp_column = warp % WARPS_N * (BLOCK / WARPS_N);  // [0, BLOCK)
  const int g = lane / 4;
  const int mn = g / 2 * 4 + g % 2;  // [0, FRAGMENT)
  const Reader<LEFT_K_MAJOR> read_left(warp_row + mn);
  const Reader<RIGHT_K_MAJOR> read_right(warp_column + mn);

  TileCopy<LEFT_K_MAJOR> copy_left(left, row0, first, M);
  TileCopy<RIGHT_K_MAJOR> copy_right(right, column0, first, N);
  const auto copy_packs = [&](Element* stage, int number, Offset k_left) {
    const int in_tile = k_left < BLOCK_K ? int(k_left) : BLOCK_K;
    copy_left.start_pack(stage, number, in_tile);
    copy_right.start_pack(stage + OPERAND_TILE, number, in_tile);
  };
  const auto copy_rest = [&](Element* stage, Offset k_left) {
    const int in_tile = k_left < BLOCK_K ? int(k_left) : BLOCK_K;
    copy_left.start_elements(stage, in_tile);
    copy_right.start_elements(stage + OPERAND_TILE, in_tile);
    copy_left.from += copy_left.step;
    copy_right.from += copy_right.step;
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    const Offset k_left = last - first - s * BLOCK_K;
#pragma unroll
    for (int i = 0; i < FRAGMENTS_M; ++i) copy_packs(stages + s * STAGE, i, k_left);
    copy_rest(stages + s * STAGE, k_left);
  }

  Accumulator sum[FRAGMENTS_M][2 * FRAGMENTS_N][2][2] = {};
  int now = 0;
#pragma unroll 1
  for (Offset k_left = last - first; k_left > 0; k_left -= BLOCK_K) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage has arrived, and the one that is filled next is free
    const Element* const left_tile = stages + now * STAGE;
    const Element* const right_tile = left_tile + OPERAND_TILE;
    Element* const free_stage = stages + (now > 0 ? now - 1 : STAGES - 1) * STAGE;
    const Offset k_left_then = k_left - (STAGES - 1) * BLOCK_K;

    Element a[MMAS_K][2], b[2 * FRAGMENTS_N][MMAS_K];
    const auto load_left = [&](int i) {
#pragma unroll
      for (int s = 0; s < MMAS_K; ++s)
#pragma unroll
        for (int half = 0; half < 2; ++half) a[s][half] = read_left.load(left_tile, i, half, s);
    };
    load_left(0);
#pragma unroll
    for (int j = 0; j < 2 * FRAGMENTS_N; ++j)
#pragma unroll
      for (int s = 0; s < MMAS_K; ++s) b[j][s] = read_right.load(right_tile, j / 2, j % 2, s);
#pragma unroll
    for (int i = 0; i < FRAGMENTS_M; ++i) {
      multiply(sum[i], a, b);
      if (i + 1 < FRAGMENTS_M) load_left(i + 1);  // loads and copies overlap with the tensor cores
      copy_packs(free_stage, i, k_left_then);
    }
    copy_rest(free_stage, k_left_then);
    now = now + 1 < STAGES ? now + 1 : 0;
  }
  ptx::cp_async_wait<0>();

  // Not unrolled, which keeps the code small: the accumulators are shifted instead.
#pragma unroll 1
  for (int h = 0; h < 2 * FRAGMENTS_M; ++h) {  // halves of fragments of A
    const Offset row = row0 + warp_row + h / 2 * FRAGMENT + h % 2 * 2 + mn;
#pragma unroll
    for (int j = 0; j < FRAGMENTS_N; ++j) {
      const Offset column = column0 + warp_column + j * FRAGMENT + lane % 4 * 4;
      Accumulator value[4] = {sum[0][2 * j][0][0], sum[0][2 * j][0][1], sum[0][2 * j + 1][0][0],
                              sum[0][2 * j + 1][0][1]};
      if (row < M) store_sums(target, row, column, M, N, epilogue, value);
    }
#pragma unroll
    for (int p = 1; p < 2 * FRAGMENTS_M; ++p)
#pragma unroll
      for (int j = 0; j < 2 * FRAGMENTS_N; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) sum[(p - 1) / 2][j][(p - 1) % 2][e] = sum[p / 2][j][p % 2][e];
  }
}
