// A matrix product C = A B by IEEE multiply-adds in registers, for operands of any strides.
//
// A block of threads computes a BLOCK × BLOCK tile of C, each thread THREAD × THREAD of it, in steps
// of BLOCK_K of the contraction. STAGES tiles of each operand are in shared memory: one is multiplied
// while the next is on its way from global memory through registers.
//
// Every element of C is one chain of multiply-adds over the contraction in ascending order (of one
// split of it): its bits depend neither on the tile size nor on where in the tile it lies.
#pragma once
#include "target.cuh"

constexpr int BLOCK = BLOCK_M;      // BLOCK_N
constexpr int THREAD = BLOCK / 16;  // a thread's share of the tile in each direction
constexpr int QUADS = THREAD / 4;   // elements move in fours
constexpr int PITCH = BLOCK + 4;    // of a row of a tile in shared memory
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(STAGES == 2, "one tile is multiplied, one is stored");
static_assert(TILE_GROUP == 1, "tiles are walked row by row");
static_assert(BLOCK % 64 == 0, "a thread's rows and columns come in quads, 16 threads each way");
static_assert(THREADS == 256, "16 × 16 threads share a tile");
static_assert(BLOCK * BLOCK_K == THREADS * THREAD, "each thread stages THREAD elements a step");

// A matrix of (outer, contraction) elements: a row of A or a column of B is one outer index.
struct Operand {
  const Element* p;
  Offset outer_stride, contraction_stride;
  int along;   // 1: threads walk along the contraction, 0: along the outer index
  int packed;  // 1: the walk has stride 1, and every fourth element of it is aligned for a pack

  // Elements (outer, q) and the three after it along the walk; zero beyond the ends.
  __device__ __forceinline__ void load(Offset outer, Offset q, Offset outer_end, Offset q_end,
                                       Accumulator (&value)[4]) const {
    if (along) {
      if (outer < outer_end)
        load_row(p + outer * outer_stride, contraction_stride, q, q_end, packed, value);
      else
        zero(value);
    } else {
      if (q < q_end)
        load_row(p + q * contraction_stride, outer_stride, outer, outer_end, packed, value);
      else
        zero(value);
    }
  }
  static __device__ __forceinline__ void zero(Accumulator (&value)[4]) {
#pragma unroll
    for (int e = 0; e < 4; ++e) value[e] = 0;
  }
};

// Brings one operand's tile from global memory to shared memory, transposed if need be, so that
// tile[q][outer] holds it.
template <typename Source>
struct Stage {
  Accumulator value[QUADS][4];

  __device__ __forceinline__ void load(const Source& source, Offset outer0, Offset q0,
                                       Offset outer_end, Offset q_end) {
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      int outer, q;
      place(source.along, h, outer, q);
      source.load(outer0 + outer, q0 + q, outer_end, q_end, value[h]);
    }
  }
  __device__ __forceinline__ void store(int along, Accumulator (*tile)[PITCH]) const {
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      int outer, q;
      place(along, h, outer, q);
      if (along) {
#pragma unroll
        for (int e = 0; e < 4; ++e) tile[q + e][outer] = value[h][e];
      } else {
        Pack<Accumulator, 4> pack;
#pragma unroll
        for (int e = 0; e < 4; ++e) pack.v[e] = value[h][e];
        *reinterpret_cast<Pack<Accumulator, 4>*>(&tile[q][outer]) = pack;
      }
    }
  }
  // First element of this thread's quad h: outer in [0, BLOCK), q in [0, BLOCK_K).
  static __device__ __forceinline__ void place(int along, int h, int& outer, int& q) {
    const int quad = h * THREADS + threadIdx.x;
    outer = along ? quad / (BLOCK_K / 4) : quad % (BLOCK / 4) * 4;
    q = along ? quad % (BLOCK_K / 4) * 4 : quad / (BLOCK / 4);
  }
};

// finish(column, value) is applied to every four neighbouring elements of a row of C.
template <typename Left, typename Right, typename T, typename Finish>
__device__ __forceinline__ void gemm_ffma(const Left& left, const Right& right,
                                          const Target<T>& target, Offset rows, Offset columns,
                                          Offset contraction, Offset split_length,
                                          const Finish& finish) {
  __shared__ __align__(16) Accumulator left_tile[STAGES][BLOCK_K][PITCH];
  __shared__ __align__(16) Accumulator right_tile[STAGES][BLOCK_K][PITCH];
  const int tiles_across = int((columns + BLOCK - 1) / BLOCK);
  const Offset row0 = Offset(blockIdx.x / tiles_across) * BLOCK;
  const Offset column0 = Offset(blockIdx.x % tiles_across) * BLOCK;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < contraction ? first + split_length : contraction;

  // A warp covers 4 × 8 threads, so that its reads of both tiles are few and free of conflicts.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int ty = warp / 2 * 4 + lane / 8;  // [0, 16)
  const int tx = warp % 2 * 8 + lane % 8;  // [0, 16)

  Accumulator sum[THREAD][THREAD] = {};
  Stage<Left> left_stage;
  Stage<Right> right_stage;
  if (first < last) {
    left_stage.load(left, row0, first, rows, last);
    right_stage.load(right, column0, first, columns, last);
    left_stage.store(left.along, left_tile[0]);
    right_stage.store(right.along, right_tile[0]);
    __syncthreads();
  }
  int now = 0;
  for (Offset q0 = first; q0 < last; q0 += BLOCK_K) {
    const bool more = q0 + BLOCK_K < last;
    if (more) {
      left_stage.load(left, row0, q0 + BLOCK_K, rows, last);
      right_stage.load(right, column0, q0 + BLOCK_K, columns, last);
    }
#pragma unroll
    for (int q = 0; q < BLOCK_K; ++q) {
      Accumulator a[THREAD], b[THREAD];
#pragma unroll
      for (int h = 0; h < QUADS; ++h) {
        const auto a4 = *reinterpret_cast<const Pack<Accumulator, 4>*>(
            &left_tile[now][q][h * (BLOCK / QUADS) + ty * 4]);
        const auto b4 = *reinterpret_cast<const Pack<Accumulator, 4>*>(
            &right_tile[now][q][h * (BLOCK / QUADS) + tx * 4]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          a[h * 4 + e] = a4.v[e];
          b[h * 4 + e] = b4.v[e];
        }
      }
#pragma unroll
      for (int i = 0; i < THREAD; ++i)
#pragma unroll
        for (int j = 0; j < THREAD; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
    }
    if (more) {
      left_stage.store(left.along, left_tile[now ^ 1]);
      right_stage.store(right.along, right_tile[now ^ 1]);
      __syncthreads();
      now ^= 1;
    }
  }

#pragma unroll
  for (int i = 0; i < THREAD; ++i) {
    const Offset row = row0 + i / 4 * (BLOCK / QUADS) + ty * 4 + i % 4;
    if (row >= rows) continue;
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      const Offset column = column0 + h * (BLOCK / QUADS) + tx * 4;
      Accumulator value[4] = {sum[i][h * 4], sum[i][h * 4 + 1], sum[i][h * 4 + 2],
                              sum[i][h * 4 + 3]};
      store_sums(target, row, column, rows, columns, finish, value);
    }
  }
}
