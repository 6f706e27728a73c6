// A matrix product C = A B on the tensor cores (mma.sync), for operands that are 16-bit planes.
//
// WARPS_M × WARPS_N warps compute a BLOCK × BLOCK tile of C in steps of BLOCK_K of the contraction.
// STAGES tiles of every plane of both operands are in shared memory: one is multiplied while the
// next are on their way (cp.async).
//
// Plane p of A times plane q of B has the weight WEIGHT^(p + q), which is 1 for three planes. They
// are added on the tensor cores, the smallest products first; those of p + q beyond the last plane
// are left out. Tensor cores cut off what does not fit when they add, so that long sums there lose
// digits: what has been added is promoted, by an ordinary addition, into a second set of registers,
// after every 16 terms of the contraction (64 where there is one plane), and the products of the
// first planes apart from the others.
//
// An element of C is one sum over the contraction in ascending order (of one split of it): its bits
// depend neither on the tile size nor on where in the tile it lies. An element that is not finite is
// computed once more, by plain multiply-adds of the values behind the planes: an infinity times a
// zero plane, or a sum that overflowed only here, is replaced by what IEEE arithmetic gives.
#pragma once
#include "fragments.cuh"
#include "plane_operand.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int BLOCK = BLOCK_M;  // BLOCK_N
constexpr int STEPS = BLOCK_K / MMA_K;
constexpr int MMAS_M = BLOCK / WARPS_M / MMA_M;  // a warp's share of the tile, in products of one
constexpr int MMAS_N = BLOCK / WARPS_N / MMA_N;  // instruction
constexpr int PLANE_TILE = BLOCK * BLOCK_K;      // elements of one plane of one operand
constexpr int STAGE = 2 * PLANE_COUNT * PLANE_TILE;
constexpr int SUM_PITCH = BLOCK + 8;             // of a row of sums in shared memory
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(SHARED_BYTES == STAGES * STAGE * int(sizeof(Plane)), "the stages are all there is");
static_assert(WARPS_M * WARPS_N * 32 == THREADS, "every warp has a share of the tile");
static_assert(MMAS_N % 2 == 0, "ldmatrix brings the right operand of two products");
static_assert(PLANE_TILE % (CHUNK * THREADS) == 0, "each thread copies as many chunks");
static_assert(BLOCK * SUM_PITCH * int(sizeof(float)) <= SHARED_BYTES, "sums overlay the stages");

// A tile of a plane in shared memory.
template <bool ALONG>
struct Tile : ChunkedRows<ALONG ? BLOCK_K : BLOCK> {};

template <bool ALONG, int UPPER_OUTER>
using Reader = FragmentReader<ALONG, Tile<ALONG>::COLUMNS, UPPER_OUTER>;

// What a thread copies of every tile of an operand.
template <bool ALONG>
struct Copier {
  typedef Tile<ALONG> T;
  static constexpr int COPIES = PLANE_TILE / (CHUNK * THREADS);  // of each plane
  static constexpr int ROW_STEP = THREADS / T::CHUNKS;           // rows between them
  static_assert(ROW_STEP % 8 == 0, "the copies of a thread have their chunks exchanged alike");

  const Plane* from;
  Offset row_stride, plane_stride;
  Offset rows_left, columns_left;  // from the thread's first element on
  int to;

  __device__ __forceinline__ Copier(const PlaneOperand<ALONG>& operand, Offset outer0, Offset q0,
                                    Offset outer_end, Offset q_end)
      : row_stride(operand.row_stride), plane_stride(operand.plane_stride) {
    const int r = threadIdx.x / T::CHUNKS, c = threadIdx.x % T::CHUNKS;
    const Offset row = (ALONG ? outer0 : q0) + r;
    const Offset column = (ALONG ? q0 : outer0) + c * CHUNK;
    from = operand.p + row * row_stride + column;
    rows_left = (ALONG ? outer_end : q_end) - row;
    columns_left = (ALONG ? q_end : outer_end) - column;
    to = r * T::COLUMNS + (c ^ T::exchange(r)) * CHUNK;
  }

  // Starts the copies of one tile of every plane, zeros beyond the ends, and moves on to the next.
  __device__ __forceinline__ void start(Plane* tiles) {
    const int elements = columns_left >= CHUNK ? CHUNK : columns_left > 0 ? int(columns_left) : 0;
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int i = 0; i < COPIES; ++i)
        ptx::cp_async16(tiles + p * PLANE_TILE + to + i * THREADS * CHUNK,
                        from + p * plane_stride + i * ROW_STEP * row_stride,
                        i * ROW_STEP < rows_left ? elements * int(sizeof(Plane)) : 0);
    from += ALONG ? BLOCK_K : BLOCK_K * row_stride;
    (ALONG ? columns_left : rows_left) -= BLOCK_K;
  }
};

// A warp's share of the tile of C.
struct Sums {
  float sum[MMAS_M][MMAS_N][4];   // what has been promoted
  float part[MMAS_M][MMAS_N][4];  // what the tensor cores add to

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

// Multiplies one stage. Unrolled where several planes are in registers, its pieces would spill.
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

// finish(column, value) is applied to every four neighbouring elements of a row of C.
template <bool LEFT_ALONG, bool RIGHT_ALONG, typename T, typename Finish>
__device__ __forceinline__ void gemm_mma(const PlaneOperand<LEFT_ALONG>& left,
                                         const PlaneOperand<RIGHT_ALONG>& right,
                                         const Target<T>& target, Offset rows, Offset columns,
                                         Offset contraction, Offset split_length,
                                         const Finish& finish) {
  extern __shared__ __align__(128) unsigned char shared[];
  Plane* const stages = reinterpret_cast<Plane*>(shared);
  float (*const tile)[SUM_PITCH] = reinterpret_cast<float (*)[SUM_PITCH]>(shared);

  Offset row0, column0;
  place_tile<BLOCK>(rows, columns, row0, column0);
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < contraction ? first + split_length : contraction;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / WARPS_N * (BLOCK / WARPS_M);     // [0, BLOCK)
  const int warp_column = warp % WARPS_N * (BLOCK / WARPS_N);  // [0, BLOCK)

  Copier<LEFT_ALONG> copy_left(left, row0, first, rows, last);
  Copier<RIGHT_ALONG> copy_right(right, column0, first, columns, last);
  const Reader<LEFT_ALONG, 3> read_left(warp_row);
  const Reader<RIGHT_ALONG, 4> read_right(warp_column);
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
  for (Offset q0 = first; q0 < last; q0 += BLOCK_K) {
    ptx::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage has come, and nobody reads the one that the next copies go to
    if (q0 + (STAGES - 1) * BLOCK_K < last) {
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
      for (int e = 0; e < 4; e += 2) {  // elements 2 and 3 are eight rows below
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
    if (row >= rows || column >= columns) continue;
    auto pack = finished(left, right, row, column, columns, first, last, &tile[r][c]);
    store_sums(target, row, column, rows, columns, finish, pack.v);
  }
}
