// Tile rasterization: which tile of C a CTA computes.
#pragma once
#include "element.cuh"

// The first row and column of a tile of C (M, N). Tiles go down the columns of a group of
// TILE_GROUP rows of tiles, so that CTAs that run at the same time share tiles of A and B in L2.
template <int TILE_M, int TILE_N>
__device__ __forceinline__ void tile_origin(Offset tile, Offset M, Offset N, Offset& row0,
                                           Offset& column0) {
  const Offset tiles_m = (M + TILE_M - 1) / TILE_M, tiles_n = (N + TILE_N - 1) / TILE_N;
  const Offset group = tile / (TILE_GROUP * tiles_n);
  const Offset inside = tile % (TILE_GROUP * tiles_n);
  const Offset rows_left = tiles_m - group * TILE_GROUP;
  const Offset height = rows_left < TILE_GROUP ? rows_left : TILE_GROUP;
  row0 = (group * TILE_GROUP + inside % height) * TILE_M;
  column0 = inside / height * TILE_N;
}

// The same of this CTA's square tile.
template <int TILE>
__device__ __forceinline__ void tile_origin(Offset M, Offset N, Offset& row0,
                                           Offset& column0) {
  tile_origin<TILE, TILE>(blockIdx.x, M, N, row0, column0);
}
