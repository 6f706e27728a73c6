// Which tile of a matrix product a block computes.
#pragma once
#include "element.cuh"

// The first row and column of a tile of a result (rows, columns). TILE_GROUP rows of tiles are
// walked column by column, so that blocks that run together share what they read of both operands.
template <int HEIGHT, int WIDTH>
__device__ __forceinline__ void place_tile(Offset tile, Offset rows, Offset columns, Offset& row0,
                                           Offset& column0) {
  const Offset down = (rows + HEIGHT - 1) / HEIGHT, across = (columns + WIDTH - 1) / WIDTH;
  const Offset group = tile / (TILE_GROUP * across);
  const Offset inside = tile % (TILE_GROUP * across);
  const Offset left = down - group * TILE_GROUP;
  const Offset height = left < TILE_GROUP ? left : TILE_GROUP;
  row0 = (group * TILE_GROUP + inside % height) * HEIGHT;
  column0 = inside / height * WIDTH;
}

// Those of this block's square tile.
template <int SIDE>
__device__ __forceinline__ void place_tile(Offset rows, Offset columns, Offset& row0,
                                           Offset& column0) {
  place_tile<SIDE, SIDE>(blockIdx.x, rows, columns, row0, column0);
}
