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

// sum + a[0] b[0] + a[1] b[stride] + ..., rounded as the launch asks for.
float sum_of_products(float sum, const float* a, const float* b, int count, int stride,
                      OperandFormat format);

}  // namespace emulator
