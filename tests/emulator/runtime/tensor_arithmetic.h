// Operand formats of tensor cores, and how one sum of products is rounded.
#pragma once
#include <cstdint>
#include <cstring>

#include "state.h"

namespace emulator {

inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline float from_tf32(uint32_t bits) { return float_of_bits(bits & 0xffffe000u); }
inline float from_bf16(uint32_t bits) { return float_of_bits(bits << 16); }
inline float from_f16(uint32_t bits) {
  const auto low = uint16_t(bits);
  _Float16 value;
  memcpy(&value, &low, sizeof value);
  return float(value);
}

// What rounding depends on besides the values.
struct OperandFormat {
  int bytes;
  int least_exponent;  // of normal numbers
};
constexpr OperandFormat TF32{4, -126}, BF16{2, -126}, F16{2, -14};

constexpr int MAX_COLUMNS = 256, MAX_DEPTH = 16;
struct TileShape {
  int rows, columns;  // multiples of 4 and 8
  int depth;
};

// d += a b for dense row-major tiles; each element is rounded as the launch asks for.
void multiply_add(float* d, const float* a, const float* b, TileShape shape,
                  OperandFormat format);

}  // namespace emulator
