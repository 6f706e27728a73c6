// Which tile of a matrix product a block computes.
#pragma once
#include "element.cuh"

constexpr int TILE_GROUP = 8;  // rows of tiles that are walked together

// The first row and column of a tile of a result (rows, columns). TILE_GROUP rows of tiles are
// walked column by column, so that blocks that run together share what they read of both operands.
template <int BLOCK_M, int BLOCK_N>
__device__ __forceinline__ void place_tile(Offset tile, Offset rows, Offset columns, Offset& row0,
                                           Offset& column0) {
  const Offset down = (rows + BLOCK_M - 1) / BLOCK_M, across = (columns + BLOCK_N - 1) / BLOCK_N;
  const Offset group = tile / (TILE_GROUP * across);
  const Offset inside = tile % (TILE_GROUP * across);
  const Offset left = down - group * TILE_GROUP;
  const Offset height = left < TILE_GROUP ? left : TILE_GROUP;
  row0 = (group * TILE_GROUP + inside % height) * BLOCK_M;
  column0 = inside / height * BLOCK_N;
}

// Those of this block's square tile.
template <int BLOCK>
__device__ __forceinline__ void place_tile(Offset rows, Offset columns, Offset& row0,
                                           Offset& column0) {
  place_tile<BLOCK, BLOCK>(blockIdx.x, rows, columns, row0, column0);
}
