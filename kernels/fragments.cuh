// Tiles of 16-bit elements in shared memory, their fragments for mma.sync, and the product of these.
//
// A tile of an operand (outer, contraction) has rows of outer indices if ALONG, of indices of the
// contraction if not: ldmatrix reads the one, ldmatrix.trans the other.
#pragma once
#include "planes.cuh"
#include "ptx.cuh"

constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;
constexpr int CHUNK = 8;  // elements in one 16-byte access

// Rows of WIDTH elements in chunks, which are exchanged within a row so that eight rows' chunks of
// one column lie in different banks.
template <int WIDTH>
struct ChunkedRows {
  static constexpr int COLUMNS = WIDTH;
  static constexpr int CHUNKS = COLUMNS / CHUNK;  // 2, 4, 8 or more

  static __device__ __forceinline__ int exchange(int row) {
    return CHUNKS < 8 ? row / (8 / CHUNKS) % CHUNKS : row % 8;
  }
  // Where a chunk of a row begins.
  static __device__ __forceinline__ int place(int row, int chunk) {
    return row * COLUMNS + (chunk ^ exchange(row)) * CHUNK;
  }
};

// Where a lane finds its rows of the 16 × 16 pieces of a warp's share of a tile. UPPER_OUTER is the
// bit of the lane that asks for the upper eight outer indices: 3 for A, 4 for B, as mma.sync wants
// its fragments; the other of the two asks for the upper eight of the contraction. A share begins at a
// multiple of its own width, a power of two.
template <bool ALONG, int COLUMNS, int UPPER_OUTER>
struct FragmentReader {
  typedef ChunkedRows<COLUMNS> T;
  int row_start, chunk;

  __device__ __forceinline__ explicit FragmentReader(int share) {
    const int lane = threadIdx.x % 32;
    const int upper_outer = lane >> UPPER_OUTER & 1, upper_q = lane >> (7 - UPPER_OUTER) & 1;
    const int row = lane % 8 + (ALONG ? share + 8 * upper_outer : 8 * upper_q);
    row_start = row * COLUMNS;
    chunk = (ALONG ? upper_q : share / CHUNK + upper_outer) ^ T::exchange(row);
  }

  // Piece i of the share along the outer index, piece s of the tile along the contraction.
  __device__ __forceinline__ void load(const Plane* tile, int i, int s, unsigned (&r)[4]) const {
    const int down = ALONG ? i : s, right = ALONG ? s : i;
    const Plane* at =
        tile + row_start + down * 16 * COLUMNS + (chunk ^ right * (16 / CHUNK)) * CHUNK;
    if (ALONG)
      ptx::ldmatrix_x4(r, at);
    else
      ptx::ldmatrix_x4_trans(r, at);
  }
};

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
#if defined(PLANES_BF16)
  ptx::mma_m16n8k16_bf16(d, a, b);
#else
  ptx::mma_m16n8k16_f16(d, a, b);
#endif
}
