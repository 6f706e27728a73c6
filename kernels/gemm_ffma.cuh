// SIMT GEMM C = A B: IEEE fused multiply-adds (FFMA, DFMA), for operands of any strides.
//
// A CTA computes a BLOCK × BLOCK tile of C, each thread THREAD_TILE × THREAD_TILE of it, in steps
// of BLOCK_K. Shared memory is double-buffered: one tile of A and B is multiplied while the next is
// in flight from global memory to registers.
//
// An element of C is one chain of fused multiply-adds over K (of one split of it) in ascending
// order: its bits depend neither on the tile size nor on its position in the tile.
#pragma once
#include "target.cuh"

constexpr int BLOCK = BLOCK_M;           // BLOCK_N
constexpr int THREAD_TILE = BLOCK / 16;  // rows, and columns, of C
constexpr int QUADS = THREAD_TILE / 4;   // vectors of four elements
constexpr int PITCH = BLOCK + 4;         // of a row of a tile in shared memory
static_assert(BLOCK_M == BLOCK_N, "tiles are square");
static_assert(STAGES == 2, "double buffering");
static_assert(TILE_GROUP == 1, "tiles are in row-major order");
static_assert(BLOCK % 64 == 0, "a thread's rows and columns come in quads, 16 threads each way");
static_assert(THREADS == 256, "16 × 16 thread tiles");
static_assert(BLOCK * BLOCK_K == THREADS * THREAD_TILE, "elements that a thread loads");

// A (M, K), or the transpose of B: (N, K).
struct Operand {
  const Element* p;
  Offset mn_stride, k_stride;
  int k_major;  // 1: vectors of four elements are along K, 0: along M or N
  int packed;   // 1: the stride along them is 1, and every fourth element is aligned for a pack

  // Element (mn, k) and the next three of its vector; zero beyond the ends.
  __device__ __forceinline__ void load(Offset mn, Offset k, Offset mn_end, Offset k_end,
                                       Accumulator (&value)[4]) const {
    if (k_major) {
      if (mn < mn_end)
        load_row(p + mn * mn_stride, k_stride, k, k_end, packed, value);
      else
        zero(value);
    } else {
      if (k < k_end)
        load_row(p + k * k_stride, mn_stride, mn, mn_end, packed, value);
      else
        zero(value);
    }
  }
  static __device__ __forceinline__ void zero(Accumulator (&value)[4]) {
#pragma unroll
    for (int e = 0; e < 4; ++e) value[e] = 0;
  }
};

// Copies an operand's tile from global memory by way of registers to tile[kk][mn] in shared memory.
template <typename Source>
struct Stage {
  Accumulator value[QUADS][4];

  __device__ __forceinline__ void load(const Source& source, Offset mn0, Offset k0, Offset mn_end,
                                       Offset k_end) {
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      int mn, kk;
      coordinates(source.k_major, h, mn, kk);
      source.load(mn0 + mn, k0 + kk, mn_end, k_end, value[h]);
    }
  }
  __device__ __forceinline__ void store(int k_major, Accumulator (*tile)[PITCH]) const {
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      int mn, kk;
      coordinates(k_major, h, mn, kk);
      if (k_major) {
#pragma unroll
        for (int e = 0; e < 4; ++e) tile[kk + e][mn] = value[h][e];
      } else {
        Pack<Accumulator, 4> pack;
#pragma unroll
        for (int e = 0; e < 4; ++e) pack.v[e] = value[h][e];
        *reinterpret_cast<Pack<Accumulator, 4>*>(&tile[kk][mn]) = pack;
      }
    }
  }
  // Of the first element of this thread's vector h: mn in [0, BLOCK), kk in [0, BLOCK_K).
  static __device__ __forceinline__ void coordinates(int k_major, int h, int& mn, int& kk) {
    const int quad = h * THREADS + threadIdx.x;
    mn = k_major ? quad / (BLOCK_K / 4) : quad % (BLOCK / 4) * 4;
    kk = k_major ? quad % (BLOCK_K / 4) * 4 : quad / (BLOCK / 4);
  }
};

// epilogue(column, value) is applied to every four adjacent elements of a row of C.
template <typename Left, typename Right, typename T, typename Epilogue>
__device__ __forceinline__ void gemm_ffma(const Left& left, const Right& right,
                                          const Target<T>& target, Offset M, Offset N, Offset K,
                                          Offset split_length, const Epilogue& epilogue) {
  __shared__ __align__(16) Accumulator left_tile[STAGES][BLOCK_K][PITCH];
  __shared__ __align__(16) Accumulator right_tile[STAGES][BLOCK_K][PITCH];
  const int tiles_n = int((N + BLOCK - 1) / BLOCK);
  const Offset row0 = Offset(blockIdx.x / tiles_n) * BLOCK;
  const Offset column0 = Offset(blockIdx.x % tiles_n) * BLOCK;
  const Offset first = blockIdx.y * split_length;
  const Offset last = first + split_length < K ? first + split_length : K;

  // A warp is 4 × 8 threads: few reads of both tiles, and no bank conflicts.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int ty = warp / 2 * 4 + lane / 8;  // [0, 16)
  const int tx = warp % 2 * 8 + lane % 8;  // [0, 16)

  Accumulator sum[THREAD_TILE][THREAD_TILE] = {};
  Stage<Left> left_stage;
  Stage<Right> right_stage;
  if (first < last) {
    left_stage.load(left, row0, first, M, last);
    right_stage.load(right, column0, first, N, last);
    left_stage.store(left.k_major, left_tile[0]);
    right_stage.store(right.k_major, right_tile[0]);
    __syncthreads();
  }
  int now = 0;
  for (Offset k0 = first; k0 < last; k0 += BLOCK_K) {
    const bool more = k0 + BLOCK_K < last;
    if (more) {
      left_stage.load(left, row0, k0 + BLOCK_K, M, last);
      right_stage.load(right, column0, k0 + BLOCK_K, N, last);
    }
#pragma unroll
    for (int kk = 0; kk < BLOCK_K; ++kk) {
      Accumulator a[THREAD_TILE], b[THREAD_TILE];
#pragma unroll
      for (int h = 0; h < QUADS; ++h) {
        const auto a4 = *reinterpret_cast<const Pack<Accumulator, 4>*>(
            &left_tile[now][kk][h * (BLOCK / QUADS) + ty * 4]);
        const auto b4 = *reinterpret_cast<const Pack<Accumulator, 4>*>(
            &right_tile[now][kk][h * (BLOCK / QUADS) + tx * 4]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          a[h * 4 + e] = a4.v[e];
          b[h * 4 + e] = b4.v[e];
        }
      }
#pragma unroll
      for (int i = 0; i < THREAD_TILE; ++i)
#pragma unroll
        for (int j = 0; j < THREAD_TILE; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
    }
    if (more) {
      left_stage.store(left.k_major, left_tile[now ^ 1]);
      right_stage.store(right.k_major, right_tile[now ^ 1]);
      __syncthreads();
      now ^= 1;
    }
  }

#pragma unroll
  for (int i = 0; i < THREAD_TILE; ++i) {
    const Offset row = row0 + i / 4 * (BLOCK / QUADS) + ty * 4 + i % 4;
    if (row >= M) continue;
#pragma unroll
    for (int h = 0; h < QUADS; ++h) {
      const Offset column = column0 + h * (BLOCK / QUADS) + tx * 4;
      Accumulator value[4] = {sum[i][h * 4], sum[i][h * 4 + 1], sum[i][h * 4 + 2],
                              sum[i][h * 4 + 3]};
      store_sums(target, row, column, M, N, epilogue, value);
    }
  }
}
