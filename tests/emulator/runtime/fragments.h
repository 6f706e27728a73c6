// Which element of a 16-row operand a lane's registers hold: the same for mma.sync and wgmma.
#pragma once
#include <cstdint>

#include "tensor_arithmetic.h"

namespace emulator {

// a: 16 x 8, `pitch` floats from row to row
inline void place_tf32(uint32_t lane, const uint32_t* registers, float* a, uint32_t pitch) {
  const uint32_t row = lane / 4, column = lane % 4;
  for (uint32_t i = 0; i < 4; i++) {
    a[(row + i % 2 * 8) * pitch + column + i / 2 * 4] = from_tf32(registers[i]);
  }
}

// a: 16 x 16, two neighbours in each register
template <class Decode>
void place_16_bit(uint32_t lane, const uint32_t* registers, float* a, uint32_t pitch,
                  Decode decode) {
  const uint32_t row = lane / 4, column = lane % 4 * 2;
  for (uint32_t i = 0; i < 4; i++) {
    float* pair = a + (row + i % 2 * 8) * pitch + column + i / 2 * 8;
    pair[0] = decode(registers[i] & 0xffffu);
    pair[1] = decode(registers[i] >> 16);
  }
}

}  // namespace emulator
