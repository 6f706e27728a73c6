// Boxes of tensors: which bytes of global memory go where in shared memory.
#pragma once
#include <algorithm>

#include "bulk_copies.h"

namespace emulator {

constexpr uint32_t PIECE_BYTES = 16;  // swizzles keep pieces whole
constexpr uint64_t TENSOR_MAP_ALIGNMENT = 64;

struct TensorMap {  // laid out as tensor_maps.py packs it: dimension 0 is contiguous
  uint64_t magic, base;
  uint64_t extents[MAX_TENSOR_RANK];
  uint64_t strides[MAX_TENSOR_RANK];  // bytes
  uint32_t box[MAX_TENSOR_RANK];
  uint32_t rank, item_bytes;
  Swizzle swizzle;
  uint32_t row_bytes() const { return box[0] * item_bytes; }
  uint32_t rows() const { return box[1] * box[2] * box[3]; }
  uint32_t box_bytes() const { return row_bytes() * rows(); }
};
static_assert(sizeof(TensorMap) <= 128, "a CUtensorMap has 128 bytes");

// The part of one row of a box that lies in the tensor; `bytes` is 0 where nothing does.
struct RowInside {
  const char* global;
  uint32_t first, bytes;  // within the row
};

inline RowInside row_inside(const TensorMap& map, const TensorCoordinates& corner, uint32_t row) {
  const char* global = reinterpret_cast<const char*>(map.base);
  for (uint32_t i = 1; i < map.rank; i++) {
    const int64_t index = int64_t(corner.index[i]) + row % map.box[i];
    row /= map.box[i];
    if (index < 0 || uint64_t(index) >= map.extents[i]) return RowInside{nullptr, 0, 0};
    global += uint64_t(index) * map.strides[i];
  }
  const int64_t column = corner.index[0], end = column + map.box[0];
  const int64_t first = std::max<int64_t>(column, 0);
  const int64_t last = std::min<int64_t>(end, int64_t(map.extents[0]));
  if (first >= last) return RowInside{nullptr, 0, 0};
  return RowInside{global + first * map.item_bytes, uint32_t(first - column) * map.item_bytes,
                   uint32_t(last - first) * map.item_bytes};
}

// visit(piece of shared memory, number of the row, first byte of the piece within it)
template <class Visit>
void for_each_piece(const TensorMap& map, const char* shared, Visit visit) {
  auto offset = uint64_t(shared - shared_memory.begin);
  for (uint32_t row = 0; row < map.rows(); row++) {
    for (uint32_t byte = 0; byte < map.row_bytes(); byte += PIECE_BYTES, offset += PIECE_BYTES) {
      visit(shared_memory.begin + swizzled(offset, map.swizzle), row, byte);
    }
  }
}

}  // namespace emulator
