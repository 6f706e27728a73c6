// Operands of wgmma in shared memory: what a descriptor says, and where each item lies.
#pragma once
#include "bulk_copies.h"
#include "tensor_arithmetic.h"

namespace emulator {

constexpr int WGMMA_ROWS = 64;  // of a and d
constexpr int SLAB_BYTES = 32;  // contraction of one instruction, per row or column

int item_bytes(WgmmaType type);
OperandFormat format_of(WgmmaType type);
float decode(uint32_t bits, WgmmaType type);

struct Operand {
  uint64_t descriptor;
  bool transposed;  // MN-major
  int rows;         // of a; columns of b
  WgmmaType type;
  bool operator==(const Operand& other) const {
    return descriptor == other.descriptor && transposed == other.transposed &&
           rows == other.rows && type == other.type;
  }
};

// Fails where no layout is like that; `name` is a or b.
void require_valid_descriptor(const Operand& operand, const char* name);
// Reads and checks: for the rows of each warp (a: row by row in `out`), or for all warps
// (b: `out` holds a row for each k).
void read_a(const Operand& operand, float* out);
void read_b(const Operand& operand, float* out);

}  // namespace emulator
