// Copies that the hardware makes by itself (TMA).
#pragma once
#include "state.h"

namespace emulator {

// Lets one outstanding bulk copy land; false if there is none. Called when no thread can run.
bool complete_one_bulk_copy();
// At the end of a block: its shared memory goes to the next one.
void require_no_bulk_copies();
void forget_bulk_copies();

// Shared memory addresses are permuted within atoms of 8 rows; the modes are those of a wgmma
// descriptor.
enum class Swizzle : uint32_t { NONE, BYTES_128, BYTES_64, BYTES_32 };
inline uint64_t swizzled(uint64_t offset, Swizzle mode) {
  switch (mode) {
    case Swizzle::BYTES_128:
      return offset ^ ((offset >> 7 & 7) << 4);
    case Swizzle::BYTES_64:
      return offset ^ ((offset >> 7 & 3) << 4);
    case Swizzle::BYTES_32:
      return offset ^ ((offset >> 7 & 1) << 4);
    default:
      return offset;
  }
}

}  // namespace emulator
