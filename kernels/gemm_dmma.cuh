// A matrix product C = A B on the FP64 tensor cores, for operands of any strides.
//
// WARPS_M × WARPS_N warps compute a BLOCK × BLOCK tile of C in steps of BLOCK_K of the contraction.
// STAGES tiles of each operand are in shared memory: one is multiplied while the next are on their
// way (cp.async).
//
// Products and sums are IEEE arithmetic, for these tensor cores round as multiply-adds do. An
// element of C is one sum over the contraction in ascending order (of one split of it): its bits
// depend neither on the tile size nor on where in the tile it lies, nor on the operands' strides.
#pragma once
#include "ptx.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int BLOCK = BLOCK_M;                       // BLOCK_N
constexpr int PIECE = 16;                            // outer indices, in halves of eight
constexpr int PIECES_M = BLOCK / WARPS_M / PIECE;    // a warp's share of the tile
constexpr int PIECES_N = BLOCK / WARPS_N / PIECE;
constexpr int MMA_K = 4, MMAS_K = BLOCK_K / MMA_K;
constexpr int OPERAND_TILE = BLOCK * (BLOCK_K + PADDING);  // elements of an operand in a stage
constexpr int STAGE = 2 * OPERAND_TILE;
static_assert(sizeof(Element) == 8, "elements are doubles");
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(BLOCK == 64 || BLOCK == 128, "a warp's share is 32 × 16 or 64 × 32");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "every warp has a share of the tile");
static_assert(BLOCK * BLOCK_K == 2 * THREADS * PIECES_M, "with each piece goes one pack a thread");
static_assert(SHARED_BYTES == STAGES * STAGE * int(sizeof(Element)), "the stages are all there is");

// A tile of an operand in shared memory, in the order in which it is walked in global memory: rows
// are outer indices if ALONG, indices of the contraction if not. Half a warp reads four neighbours
// along the contraction times outer indices 0, 1, 4 and 5: rows are padded and odd ones shifted, so
// that these lie in different banks of 8 bytes.
template <bool ALONG>
struct Tile {
  static constexpr int ROWS = ALONG ? BLOCK : BLOCK_K;
  static constexpr int COLUMNS = ALONG ? BLOCK_K : BLOCK;
  static constexpr int PITCH = COLUMNS + (ALONG ? PADDING : 4);
  static constexpr int SHIFT = ALONG ? 2 : -2;  // rows 0, 1, 4, 5 begin at banks 0, 4, 8, 12
                                                // or rows 0 to 3 at banks 0, 2, 8, 10
  static_assert(PITCH % 16 == (ALONG ? 2 : 4), "reads are free of bank conflicts");
  static_assert(ROWS * PITCH <= OPERAND_TILE, "the tile has its place");

  static __device__ __forceinline__ int place(int row, int column) {
    return row * PITCH + row % 2 * SHIFT + column;
  }
};

// A matrix of (outer, contraction) elements: a row of A or a column of B is one outer index. It is
// walked along the contraction if ALONG, along the outer index if not.
template <bool ALONG>
struct Operand {
  const Element* p;
  Offset outer_stride, contraction_stride;
  int packed;  // the walk has stride 1, and every second element of it is 16-byte aligned
};

#if defined(LEFT_ACROSS)
typedef Operand<false> Left;
#else
typedef Operand<true> Left;
#endif
#if defined(RIGHT_ACROSS)
typedef Operand<false> Right;
#else
typedef Operand<true> Right;
#endif

// What a thread copies of every tile of an operand, PIECES_M packs or twice as many elements. What
// lies beyond the ends becomes zero. q_left terms of the contraction are left, none if negative.
template <bool ALONG>
struct Copier {
  typedef Tile<ALONG> T;
  static constexpr int ROW_STEP = THREADS / T::COLUMNS;  // rows between a thread's elements
  static_assert(ROW_STEP % 2 == 0, "the rows of a thread are shifted alike");

  const Element* from;
  Offset row_stride, step;  // step: to the next tile
  int packed;
  int q, to;       // the thread's first element in a tile
  int outer_left;  // outer indices from there on

  __device__ __forceinline__ Copier(const Operand<ALONG>& operand, Offset outer0, Offset q0,
                                    Offset outer_end)
      : row_stride(ALONG ? operand.outer_stride : operand.contraction_stride),
        step(BLOCK_K * operand.contraction_stride),
        packed(operand.packed) {
    const int element = packed ? 2 * threadIdx.x : threadIdx.x;
    const int row = element / T::COLUMNS, column = element % T::COLUMNS;
    const Offset outer = outer0 + (ALONG ? row : column);
    q = ALONG ? column : row;
    to = T::place(row, column);
    from = operand.p + outer * operand.outer_stride + (q0 + q) * operand.contraction_stride;
    outer_left = outer_end - outer < BLOCK ? int(outer_end - outer) : BLOCK;
  }

  // Starts the copy of one pack, if elements move in packs.
  __device__ __forceinline__ void start_pack(Element* tile, int number, int q_left) const {
    if (!packed) return;
    const int rows_left = ALONG ? outer_left : q_left - q;
    const int columns_left = ALONG ? q_left - q : outer_left;
    const int row = number * 2 * ROW_STEP;
    const int bytes = columns_left > 1 ? 16 : columns_left == 1 ? 8 : 0;
    ptx::cp_async16(tile + to + row * T::PITCH, from + row * row_stride,
                    row < rows_left ? bytes : 0);
  }
  // Starts the copies of all elements, if they move one by one. Unrolled, their addresses would take
  // the registers of the sums.
  __device__ __forceinline__ void start_elements(Element* tile, int q_left) const {
    if (packed) return;
    const int rows_left = ALONG ? outer_left : q_left - q;
    const int columns_left = ALONG ? q_left - q : outer_left;
#pragma unroll 1
    for (int row = 0; row < T::ROWS; row += ROW_STEP)
      ptx::cp_async8(tile + to + row * T::PITCH, from + row * row_stride,
                     row < rows_left && columns_left > 0 ? 8 : 0);
  }
};

// Where a lane finds its elements of a tile; outer is the first outer index of its share.
template <bool ALONG>
struct Reader {
  typedef Tile<ALONG> T;
  int from;

  __device__ __forceinline__ explicit Reader(int outer) {
    const int q = threadIdx.x % 4;
    from = ALONG ? T::place(outer, q) : T::place(q, outer);
  }
  // The element of a half of a piece, in terms s MMA_K and the next three of the contraction.
  __device__ __forceinline__ Element load(const Element* tile, int piece, int half, int s) const {
    const int outer = piece * PIECE + half * 2, q = s * MMA_K;  // an even number of rows further
    return tile[from + (ALONG ? outer * T::PITCH + q : q * T::PITCH + outer)];
  }
};

// sum += a b, of a piece of A and the halves of pieces of B. Compute capability 9.0 alone has the
// large instruction; elsewhere it would be a chain of small ones.
__device__ __forceinline__ void multiply(Accumulator (&sum)[2 * PIECES_N][2][2],
                                         const Element (&a)[MMAS_K][2],
                                         const Element (&b)[2 * PIECES_N][MMAS_K]) {
#if __CUDA_ARCH__ == 900
#pragma unroll
  for (int j = 0; j < 2 * PIECES_N; ++j) ptx::mma_m16n8k16_f64(sum[j], a, b[j]);
#else
#pragma unroll
  for (int s = 0; s < MMAS_K; ++s)
#pragma unroll
    for (int j = 0; j < 2 * PIECES_N; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        ptx::mma_m8n8k4_f64(sum[j][half], a[s][half], b[j][s]);
#endif
}

// finish(column, value) is applied to every four neighbouring elements of a row of C.
template <bool LEFT_ALONG, bool RIGHT_ALONG, typename T, typename Finish>
__device__ __forceinline__ void gemm_dmma(const Operand<LEFT_ALONG>& left,
                                          const Operand<RIGHT_ALONG>& right,
                                          const Target<T>& target, Offset rows, Offset columns,
                                          Offset contraction, Offset split_length,
                                          const Finish& finish) {
  extern __shared__ __align__(16) Element stages[];
  Offset row0, column0;
  place_tile<BLOCK>(rows, columns, row0, column0);
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < contraction ? first + split_length : contraction;

  // Row or column g of a half of a piece is outer index g / 2 · 4 + g % 2 of the piece, two further
  // in the second half: a lane's sums of both halves are four neighbours in a row of C.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int share_row = warp / WARPS_N * (BLOCK / WARPS_M);     // [0, BLOCK)
  const int share_column = warp % WARPS_N * (BLOCK / WARPS_N);  // [0, BLOCK)
  const int g = lane / 4;
  const int outer = g / 2 * 4 + g % 2;  // [0, PIECE)
  const Reader<LEFT_ALONG> read_left(share_row + outer);
  const Reader<RIGHT_ALONG> read_right(share_column + outer);

  Copier<LEFT_ALONG> copy_left(left, row0, first, rows);
  Copier<RIGHT_ALONG> copy_right(right, column0, first, columns);
  const auto copy_packs = [&](Element* stage, int number, Offset q_left) {
    const int in_tile = q_left < BLOCK_K ? int(q_left) : BLOCK_K;
    copy_left.start_pack(stage, number, in_tile);
    copy_right.start_pack(stage + OPERAND_TILE, number, in_tile);
  };
  const auto copy_rest = [&](Element* stage, Offset q_left) {
    const int in_tile = q_left < BLOCK_K ? int(q_left) : BLOCK_K;
    copy_left.start_elements(stage, in_tile);
    copy_right.start_elements(stage + OPERAND_TILE, in_tile);
    copy_left.from += copy_left.step;
    copy_right.from += copy_right.step;
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    const Offset q_left = last - first - s * BLOCK_K;
#pragma unroll
    for (int i = 0; i < PIECES_M; ++i) copy_packs(stages + s * STAGE, i, q_left);
    copy_rest(stages + s * STAGE, q_left);
  }

  Accumulator sum[PIECES_M][2 * PIECES_N][2][2] = {};
  int now = 0;
#pragma unroll 1
  for (Offset q_left = last - first; q_left > 0; q_left -= BLOCK_K) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage has come, and nobody reads the one that the next copies go to
    const Element* const left_tile = stages + now * STAGE;
    const Element* const right_tile = left_tile + OPERAND_TILE;
    Element* const free_stage = stages + (now > 0 ? now - 1 : STAGES - 1) * STAGE;
    const Offset q_left_then = q_left - (STAGES - 1) * BLOCK_K;

    Element a[MMAS_K][2], b[2 * PIECES_N][MMAS_K];
    const auto load_left = [&](int i) {
#pragma unroll
      for (int s = 0; s < MMAS_K; ++s)
#pragma unroll
        for (int half = 0; half < 2; ++half) a[s][half] = read_left.load(left_tile, i, half, s);
    };
    load_left(0);
#pragma unroll
    for (int j = 0; j < 2 * PIECES_N; ++j)
#pragma unroll
      for (int s = 0; s < MMAS_K; ++s) b[j][s] = read_right.load(right_tile, j / 2, j % 2, s);
#pragma unroll
    for (int i = 0; i < PIECES_M; ++i) {
      multiply(sum[i], a, b);
      if (i + 1 < PIECES_M) load_left(i + 1);  // this and the copies while the tensor cores work
      copy_packs(free_stage, i, q_left_then);
    }
    copy_rest(free_stage, q_left_then);
    now = now + 1 < STAGES ? now + 1 : 0;
  }
  ptx::cp_async_wait<0>();

  // Not unrolled, for the sake of the size of the code: the sums move up instead.
#pragma unroll 1
  for (int h = 0; h < 2 * PIECES_M; ++h) {  // halves of pieces of rows
    const Offset row = row0 + share_row + h / 2 * PIECE + h % 2 * 2 + outer;
#pragma unroll
    for (int j = 0; j < PIECES_N; ++j) {
      const Offset column = column0 + share_column + j * PIECE + lane % 4 * 4;
      Accumulator value[4] = {sum[0][2 * j][0][0], sum[0][2 * j][0][1], sum[0][2 * j + 1][0][0],
                              sum[0][2 * j + 1][0][1]};
      if (row < rows) store_sums(target, row, column, rows, columns, finish, value);
    }
#pragma unroll
    for (int p = 1; p < 2 * PIECES_M; ++p)
#pragma unroll
      for (int j = 0; j < 2 * PIECES_N; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) sum[(p - 1) / 2][j][(p - 1) % 2][e] = sum[p / 2][j][p % 2][e];
  }
}
