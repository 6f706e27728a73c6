// Descriptors and layouts of wgmma's operands: K-major, or MN-major ("transposed").
#include "wgmma_operands.h"

#include "checker.h"
#include "failures.h"

namespace emulator {

OperandFormat format_of(WgmmaType type) {
  switch (type) {
    case WgmmaType::TF32:
      return TF32;
    case WgmmaType::BF16:
      return BF16;
    default:
      return F16;
  }
}

int item_bytes(WgmmaType type) { return format_of(type).bytes; }

float decode(uint32_t bits, WgmmaType type) {
  switch (type) {
    case WgmmaType::TF32:
      return from_tf32(bits);
    case WgmmaType::BF16:
      return from_bf16(bits);
    default:
      return from_f16(bits);
  }
}

constexpr uint64_t ADDRESS_FIELDS = 0x00003fff3fff3fff;  // 14 bits each, of 16 bytes
constexpr uint64_t BASE_OFFSET_FIELD = 7ull << 49, SWIZZLE_FIELD = 3ull << 62;

struct Descriptor {
  uint64_t start, leading, stride;
  Swizzle swizzle;
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4),
        swizzle(Swizzle(bits >> 62)) {}
};

static int atom_row_bytes(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::BYTES_128:
      return 128;
    case Swizzle::BYTES_64:
      return 64;
    case Swizzle::BYTES_32:
      return 32;
    default:
      return 16;
  }
}

// A start within the first row of an atom is the usual way to get to the next k, or column.
void require_valid_descriptor(const Operand& operand, const char* name) {
  const uint64_t bits = operand.descriptor;
  if (bits & ~(ADDRESS_FIELDS | BASE_OFFSET_FIELD | SWIZZLE_FIELD)) {
    fail("wgmma: the descriptor of %s, %016llx, has reserved bits that are set,", name,
         static_cast<unsigned long long>(bits));
  }
  if (bits & BASE_OFFSET_FIELD) {
    fail("wgmma: the descriptor of %s has a base offset, which only unaligned atoms need,", name);
  }
  const Descriptor descriptor(bits);
  if (descriptor.swizzle == Swizzle::NONE) return;
  const int width = atom_row_bytes(descriptor.swizzle);
  const auto within = int(descriptor.start % uint64_t(8 * width));
  if (within >= width) {
    fail("wgmma: %s starts %d bytes behind a multiple of %d, where an atom of its swizzle starts,",
         name, within, 8 * width);
  }
  const int row = operand.transposed ? operand.rows * item_bytes(operand.type) : SLAB_BYTES;
  if (within && within + row > width) {
    fail("wgmma: %s needs %d bytes of a row and starts %d bytes behind the start of an atom, "
         "whose rows have %d,", name, row, within, width);
  }
}

// K-major: a row of the operand is contiguous in k. Atoms are 8 rows.
static uint64_t k_major_offset(const Descriptor& d, int row, int k_byte) {
  uint64_t offset = d.start + uint64_t(row / 8) * d.stride;
  if (d.swizzle == Swizzle::NONE) {
    return offset + uint64_t(k_byte / 16) * d.leading + uint64_t(row % 8 * 16 + k_byte % 16);
  }
  offset += uint64_t(row % 8 * atom_row_bytes(d.swizzle) + k_byte);
  return swizzled(offset, d.swizzle);
}

// MN-major: a row of shared memory holds neighbouring rows of the operand for one k. Atoms are
// 8 values of k; `leading` separates atoms along the rows, `stride` atoms along k.
static uint64_t mn_major_offset(const Descriptor& d, int row_byte, int k) {
  const int width = atom_row_bytes(d.swizzle);
  const bool plain = d.swizzle == Swizzle::NONE;
  const uint64_t along_rows = plain ? d.stride : d.leading;
  const uint64_t along_k = plain ? d.leading : d.stride;
  const uint64_t offset = d.start + uint64_t(row_byte / width) * along_rows +
                          uint64_t(k / 8) * along_k +
                          uint64_t(k % 8 * width + row_byte % width);
  return swizzled(offset, d.swizzle);
}

static void decode_piece(const char* piece, WgmmaType type, float* out, int stride) {
  const int bytes = item_bytes(type);
  for (int i = 0; i < int(OPERAND_BYTES) / bytes; i++) {
    uint32_t bits = 0;
    memcpy(&bits, piece + i * bytes, size_t(bytes));
    out[i * stride] = decode(bits, type);
  }
}

// visit(piece, its first row, its first k): the items of a piece follow each other along k, or
// along the rows if the operand is transposed.
template <class Visit>
static void for_each_piece(const Operand& operand, Visit visit) {
  const Descriptor descriptor(operand.descriptor);
  const int bytes = item_bytes(operand.type), items = int(OPERAND_BYTES) / bytes;
  const int depth = SLAB_BYTES / bytes;
  const int row_step = operand.transposed ? items : 1, k_step = operand.transposed ? 1 : items;
  for (int row = 0; row < operand.rows; row += row_step) {
    for (int k = 0; k < depth; k += k_step) {
      const uint64_t offset = operand.transposed
                                  ? mn_major_offset(descriptor, row * bytes, k)
                                  : k_major_offset(descriptor, row, k * bytes);
      const char* piece = shared_memory.begin + offset;
      if (piece + OPERAND_BYTES > shared_memory.end) {
        fail("wgmma: a descriptor points outside shared memory,");
      }
      visit(piece, row, k);
    }
  }
}

void read_a(const Operand& operand, float* out) {
  const int bytes = item_bytes(operand.type), depth = SLAB_BYTES / bytes;
  for_each_piece(operand, [&](const char* piece, int row, int k) {
    if (checking) check_operand_of_warp(piece, bytes, uint32_t(row) / 16);
    decode_piece(piece, operand.type, out + row * depth + k, operand.transposed ? depth : 1);
  });
}

void read_b(const Operand& operand, float* out) {
  const int bytes = item_bytes(operand.type);
  for_each_piece(operand, [&](const char* piece, int column, int k) {
    if (checking) check_operand(piece, bytes);
    decode_piece(piece, operand.type, out + k * operand.rows + column,
                 operand.transposed ? 1 : operand.rows);
  });
}

}  // namespace emulator
