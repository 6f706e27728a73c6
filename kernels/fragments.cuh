// Swizzled tiles of 16-bit elements in shared memory, and the fragments that mma.sync takes of
// them.
//
// A row of a tile is an index of M or N if the operand is K-major, of K if it is MN-major: ldmatrix
// reads the one, ldmatrix.trans the other.
#pragma once
#include "planes.cuh"
#include "ptx.cuh"

constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;
constexpr int CHUNK = 8;  // elements in one 16-byte access

// Rows of WIDTH elements, swizzled in chunks: an XOR with the row, so that ldmatrix reads the
// chunks of eight rows in a column without bank conflicts.
template <int WIDTH>
struct SwizzledRows {
  static constexpr int COLUMNS = WIDTH;
  static constexpr int CHUNKS = COLUMNS / CHUNK;  // 2, 4, 8 or more

  static __device__ __forceinline__ int swizzle(int row) {
    return CHUNKS < 8 ? row / (8 / CHUNKS) % CHUNKS : row % 8;
  }
  // Of the first element of a chunk.
  static __device__ __forceinline__ int offset(int row, int chunk) {
    return row * COLUMNS + (chunk ^ swizzle(row)) * CHUNK;
  }
};

// The addresses at which a lane's ldmatrix reads the 16 × 16 blocks of a warp tile, which begins at
// index warp_mn of M or N, a multiple of its own width, a power of two. Bit UPPER_MN_BIT of the
// lane selects the upper eight indices of M or N: 3 for A, 4 for B, as the fragments of mma.sync
// require; the other of the two selects the upper eight of K.
template <bool K_MAJOR, int COLUMNS, int UPPER_MN_BIT>
struct FragmentReader {
  typedef SwizzledRows<COLUMNS> T;
  int row_start, chunk;

  __device__ __forceinline__ explicit FragmentReader(int warp_mn) {
    const int lane = threadIdx.x % 32;
    const int upper_mn = lane >> UPPER_MN_BIT & 1, upper_k = lane >> (7 - UPPER_MN_BIT) & 1;
    const int row = lane % 8 + (K_MAJOR ? warp_mn + 8 * upper_mn : 8 * upper_k);
    row_start = row * COLUMNS;
    chunk = (K_MAJOR ? upper_k : warp_mn / CHUNK + upper_mn) ^ T::swizzle(row);
  }

  // Block i of the warp tile in M or N, s in K.
  __device__ __forceinline__ void load(const Plane* tile, int i, int s, unsigned (&r)[4]) const {
    const int down = K_MAJOR ? i : s, right = K_MAJOR ? s : i;
    const Plane* at =
        tile + row_start + down * 16 * COLUMNS + (chunk ^ right * (16 / CHUNK)) * CHUNK;
    if (K_MAJOR)
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
