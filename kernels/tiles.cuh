// Which tile of a matrix product a block computes.
#pragma once
#include "element.cuh"

constexpr int TILE_GROUP = 8;  // rows of tiles that are walked together

// The first row and column of this block's tile of a result (rows, columns). TILE_GROUP rows of
// tiles are walked column by column, so that blocks that run together share what they read of both
// operands.
template <int BLOCK>
__device__ __forceinline__ void place_tile(Offset rows, Offset columns, Offset& row0,
                                           Offset& column0) {
  const Offset down = (rows + BLOCK - 1) / BLOCK, across = (columns + BLOCK - 1) / BLOCK;
  const Offset group = blockIdx.x / (TILE_GROUP * across);
  const Offset inside = blockIdx.x % (TILE_GROUP * across);
  const Offset left = down - group * TILE_GROUP;
  const Offset height = left < TILE_GROUP ? left : TILE_GROUP;
  row0 = (group * TILE_GROUP + inside % height) * BLOCK;
  column0 = inside / height * BLOCK;
}
