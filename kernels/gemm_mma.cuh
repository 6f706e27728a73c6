// GEMM C = A B on the tensor cores (mma.sync), for operands that are 16-bit planes.
//
// WARPS_M × WARPS_N warps compute a BLOCK × BLOCK tile of C in steps of BLOCK_K. A multistage
// pipeline (cp.async) holds STAGES tiles of every plane of A and B in shared memory.
//
// Plane p of A times plane q of B has the weight WEIGHT^(p + q), which is 1 with three planes. The
// tensor cores add the smallest products first; those of p + q beyond the last plane are left out.
// Tensor cores truncate when they add, so that long sums lose digits: their accumulators are
// promoted, by an ordinary addition, into a second set of registers after every 16 terms of K (64
// with one plane), and the products of the first planes apart from the others.
//
// An element of C is one sum over K (of one split of it) in ascending order: its bits depend
// neither on the tile size nor on its position in the tile. A non-finite element is computed again
// by FFMA from the values that the planes stand for: that gives what IEEE arithmetic gives, where
// an infinity met a plane of zero or a sum overflowed only here.
#pragma once
#include "fragments.cuh"
#include "plane_operand.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int BLOCK = BLOCK_M;  // BLOCK_N
constexpr int STEPS = BLOCK_K / MMA_K;
constexpr int MMAS_M = BLOCK / WARPS_M / MMA_M;  // mma instructions of a warp tile
constexpr int MMAS_N = BLOCK / WARPS_N / MMA_N;
constexpr int PLANE_TILE = BLOCK * BLOCK_K;  // elements of one plane of one operand
constexpr int STAGE = 2 * PLANE_COUNT * PLANE_TILE;
constexpr int SUM_PITCH = BLOCK + 8;  // of a row of sums in shared memory
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(SHARED_BYTES == STAGES * STAGE * int(sizeof(Plane)), "the stages are all there is");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "a warp tile for every warp");
static_assert(MMAS_N % 2 == 0, "ldmatrix loads B of two mma instructions");
static_assert(PLANE_TILE % (CHUNK * THREADS) == 0, "all threads copy equally many chunks");
static_assert(BLOCK * SUM_PITCH * int(sizeof(float)) <= SHARED_BYTES, "sums overlay the stages");

// A tile of a plane in shared memory.
template <bool K_MAJOR>
struct Tile : SwizzledRows<K_MAJOR ? BLOCK_K : BLOCK> {};

template <bool K_MAJOR, int UPPER_OUTER>
using Reader = FragmentReader<K_MAJOR, Tile<K_MAJOR>::COLUMNS, UPPER_OUTER>;

// A thread's cp.async of every tile of an operand.
template <bool K_MAJOR>
struct TileCopy {
  typedef Tile<K_MAJOR> T;
  static constexpr int COPIES = PLANE_TILE / (CHUNK * THREADS);  // of each plane
  static constexpr int ROW_STEP = THREADS / T::CHUNKS;           // rows between them
  static_assert(ROW_STEP % 8 == 0, "all chunks of a thread are swizzled alike");

  const Plane* from;
  Offset row_stride, plane_stride;
  Offset rows_left, columns_left;  // from the thread's first element on
  int to;

  __device__ __forceinline__ TileCopy(const PlaneOperand<K_MAJOR>& operand, Offset mn0, Offset k0,
                                      Offset mn_end, Offset k_end)
      : row_stride(operand.row_stride), plane_stride(operand.plane_stride) {
    const int r = threadIdx.x / T::CHUNKS, c = threadIdx.x % T::CHUNKS;
    const Offset row = (K_MAJOR ? mn0 : k0) + r;
    const Offset column = (K_MAJOR ? k0 : mn0) + c * CHUNK;
    from = operand.p + row * row_stride + column;
    rows_left = (K_MAJOR ? mn_end : k_end) - row;
    columns_left = (K_MAJOR ? k_end : mn_end) - column;
    to = r * T::COLUMNS + (c ^ T::swizzle(r)) * CHUNK;
  }

  // Issues the copies of one tile of every plane, zero-filled beyond the ends, and advances.
  __device__ __forceinline__ void start(Plane* tiles) {
    const int elements = columns_left >= CHUNK ? CHUNK : columns_left > 0 ? int(columns_left) : 0;
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int i = 0; i < COPIES; ++i)
        ptx::cp_async16(tiles + p * PLANE_TILE + to + i * THREADS * CHUNK,
                        from + p * plane_stride + i * ROW_STEP * row_stride,
                        i * ROW_STEP < rows_left ? elements * int(sizeof(Plane)) : 0);
    from += K_MAJOR ? BLOCK_K : BLOCK_K * row_stride;
    (K_MAJOR ? columns_left : rows_left) -= BLOCK_K;
  }
};

// The accumulators of a warp tile.
struct Sums {
  float sum[MMAS_M][MMAS_N][4];   // promoted
  float part[MMAS_M][MMAS_N][4];  // of the tensor cores

  __device__ __forceinline__ void clear(float (&all)[MMAS_M][MMAS_N][4]) {
#pragma unroll
    for (int i = 0; i < MMAS_M; ++i)
#pragma unroll
      for (int j = 0; j < MMAS_N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) all[i][j][e] = 0;
  }
  // sum += part weight
  __device__ __forceinline__ void promote(float weight) {
#pragma unroll
    for (int i = 0; i < MMAS_M; ++i)
#pragma unroll
      for (int j = 0; j < MMAS_N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          sum[i][j][e] = multiply_add(part[i][j][e], weight, sum[i][j][e]);
  }
  // part += a b
  __device__ __forceinline__ void add(const unsigned (&a)[MMAS_M][4],
                                      const unsigned (&b)[MMAS_N / 2][4]) {
#pragma unroll
    for (int i = 0; i < MMAS_M; ++i)
#pragma unroll
      for (int j = 0; j < MMAS_N; ++j) {
        const unsigned right[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        multiply(part[i][j], a[i], right);
      }
  }
};

// Multiplies one stage. With several planes, an unrolled loop would spill.
template <typename Left, typename Right>
__device__ __forceinline__ void multiply_stage(const Left& left, const Right& right,
                                               const Plane* stage, Sums& sums) {
#pragma unroll(PLANE_COUNT == 1 ? STEPS : 1)
  for (int s = 0; s < STEPS; ++s) {
    unsigned a[PLANE_COUNT][MMAS_M][4], b[PLANE_COUNT][MMAS_N / 2][4];
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p) {
#pragma unroll
      for (int i = 0; i < MMAS_M; ++i) left.load(stage + p * PLANE_TILE, i, s, a[p][i]);
#pragma unroll
      for (int j = 0; j < MMAS_N / 2; ++j)
        right.load(stage + (PLANE_COUNT + p) * PLANE_TILE, j, s, b[p][j]);
    }
    if (PLANE_COUNT > 1 || s == 0) sums.clear(sums.part);
#pragma unroll
    for (int weight = PLANE_COUNT - 1; weight >= 0; --weight) {
#pragma unroll
      for (int p = 0; p <= weight; ++p) sums.add(a[p], b[weight - p]);
      if (weight == 1) {
        sums.promote(WEIGHT);
        sums.clear(sums.part);
      }
    }
    if (PLANE_COUNT > 1 || s == STEPS - 1) sums.promote(1);
  }
}

// epilogue(column, value) is applied to every four adjacent elements of a row of C.
template <bool LEFT_K_MAJOR, bool RIGHT_K_MAJOR, typename T, typename Epilogue>
__device__ __forceinline__ void gemm_mma(const PlaneOperand<LEFT_K_MAJOR>& left,
                                         const PlaneOperand<RIGHT_K_MAJOR>& right,
                                         const Target<T>& target, Offset M, Offset N, Offset K,
                                         Offset split_length, const Epilogue& epilogue) {
  extern __shared__ __align__(128) unsigned char shared[];
  Plane* const stages = reinterpret_cast<Plane*>(shared);
  float (*const tile)[SUM_PITCH] = reinterpret_cast<float (*)[SUM_PITCH]>(shared);

  Offset row0, column0;
  tile_origin<BLOCK>(M, N, row0, column0);
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < K ? first + split_length : K;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / WARPS_N * (BLOCK / WARPS_M);     // [0, BLOCK)
  const int warp_column = warp % WARPS_N * (BLOCK / WARPS_N);  // [0, BLOCK)

  TileCopy<LEFT_K_MAJOR> copy_left(left, row0, first, M, last);
  TileCopy<RIGHT_K_MAJOR> copy_right(right, column0, first, N, last);
  const Reader<LEFT_K_MAJOR, 3> read_left(warp_row);
  const Reader<RIGHT_K_MAJOR, 4> read_right(warp_column);
  Sums sums;
  sums.clear(sums.sum);

#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (first + s * BLOCK_K < last) {
      copy_left.start(stages + s * STAGE);
      copy_right.start(stages + s * STAGE + PLANE_COUNT * PLANE_TILE);
    }
    ptx::cp_async_commit();
  }
  int now = 0, next = STAGES - 1;
#pragma unroll 1
  for (Offset k0 = first; k0 < last; k0 += BLOCK_K) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage has arrived, and the one that is filled next is free
    if (k0 + (STAGES - 1) * BLOCK_K < last) {
      copy_left.start(stages + next * STAGE);
      copy_right.start(stages + next * STAGE + PLANE_COUNT * PLANE_TILE);
    }
    ptx::cp_async_commit();
    multiply_stage(read_left, read_right, stages + now * STAGE, sums);
    now = now + 1 < STAGES ? now + 1 : 0;
    next = next + 1 < STAGES ? next + 1 : 0;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();

#pragma unroll
  for (int i = 0; i < MMAS_M; ++i)
#pragma unroll
    for (int j = 0; j < MMAS_N; ++j)
#pragma unroll
      for (int e = 0; e < 4; e += 2) {  // elements 2 and 3 are eight rows further
        Pack<float, 2> pack = {sums.sum[i][j][e], sums.sum[i][j][e + 1]};
        *reinterpret_cast<Pack<float, 2>*>(
            &tile[warp_row + i * MMA_M + e / 2 * 8 + lane / 4]
                 [warp_column + j * MMA_N + lane % 4 * 2]) = pack;
      }
  __syncthreads();
#pragma unroll 1
  for (int quad = threadIdx.x; quad < BLOCK * BLOCK / 4; quad += THREADS) {
    const int r = quad / (BLOCK / 4), c = quad % (BLOCK / 4) * 4;
    const Offset row = row0 + r, column = column0 + c;
    if (row >= M || column >= N) continue;
    auto pack = rescaled_pack(left, right, row, column, N, first, last, &tile[r][c]);
    store_sums(target, row, column, M, N, epilogue, pack.v);
  }
}
