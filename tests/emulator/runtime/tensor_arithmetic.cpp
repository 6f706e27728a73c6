// EXACT: summed in float64 and rounded once, to nearest.
//
// HOPPER, AMPERE: addends, the accumulator among them, are aligned to the largest exponent in a
// group, cut off (towards zero) some bits behind a float32's last, and added without error; the
// sum is cut off to a float32. Products are not normalised: their exponent is the sum of those of
// the factors. The result is the accumulator of the next group.
#include "tensor_arithmetic.h"

#include <algorithm>
#include <cmath>

namespace emulator {

constexpr int FRACTION = 23;  // bits of a float32 behind the point
constexpr int LEAST_EXPONENT = -126, LEAST_BIT = -149;
constexpr int NO_EXPONENT = INT32_MIN / 2;  // of zeros: they align nothing

struct Hardware {
  int extra_bits;
  int group_of_16_bit, group_of_tf32;  // products added at once
};

static Hardware hardware() {
  if (launch->arithmetic == TensorArithmetic::HOPPER) return Hardware{2, 16, 8};
  return Hardware{1, 8, 4};
}

// significand * 2^(exponent - FRACTION), negated if so
struct Parts {
  uint64_t significand;
  int exponent;
  bool negative;
};

static Parts take_apart(float value, int least_exponent) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t fraction = bits & 0x7fffffu, biased = bits >> FRACTION & 0xffu;
  if (!biased && !fraction) return Parts{0, NO_EXPONENT, false};
  Parts parts{biased ? fraction | 1u << FRACTION : fraction,
              biased ? int(biased) - 127 : LEAST_EXPONENT, (bits >> 31) != 0};
  if (parts.exponent < least_exponent) {  // a subnormal number of a narrower format
    parts.significand >>= least_exponent - parts.exponent;
    parts.exponent = least_exponent;
  }
  return parts;
}

static Parts multiply(const Parts& a, const Parts& b) {
  if (!a.significand || !b.significand) return Parts{0, NO_EXPONENT, false};
  return Parts{a.significand * b.significand, a.exponent + b.exponent, a.negative != b.negative};
}

static int64_t shifted(const Parts& addend, int left) {
  uint64_t magnitude = 0;
  if (left >= 0) {
    magnitude = addend.significand << left;
  } else if (left > -64) {
    magnitude = addend.significand >> -left;
  }
  return addend.negative ? -int64_t(magnitude) : int64_t(magnitude);
}

// sum * 2^unit, cut off to a float32
static float truncated(int64_t sum, int unit) {
  if (sum == 0) return 0.0f;
  auto magnitude = uint64_t(sum < 0 ? -sum : sum);
  const int bits = 64 - __builtin_clzll(magnitude);
  const int drop = std::max({bits - (FRACTION + 1), LEAST_BIT - unit, 0});
  if (drop > 63) return 0.0f;
  magnitude >>= drop;
  const float value = std::ldexp(float(magnitude), unit + drop);
  return sum < 0 ? -value : value;
}

static float add_group(float sum, const float* a, const float* b, int count, int stride,
                       const OperandFormat& format, int extra_bits) {
  constexpr int MAX_GROUP = 16;
  Parts products[MAX_GROUP];
  const Parts accumulator = take_apart(sum, LEAST_EXPONENT);
  int largest = accumulator.exponent;
  for (int k = 0; k < count; k++) {
    products[k] = multiply(take_apart(a[k], format.least_exponent),
                           take_apart(b[k * stride], format.least_exponent));
    largest = std::max(largest, products[k].exponent);
  }
  if (largest == NO_EXPONENT) return sum;
  const int unit = largest - FRACTION - extra_bits;
  int64_t total = shifted(accumulator, accumulator.exponent - FRACTION - unit);
  for (int k = 0; k < count; k++) {
    total += shifted(products[k], products[k].exponent - 2 * FRACTION - unit);
  }
  return truncated(total, unit);
}

static double sum_in_float64(float sum, const float* a, const float* b, int count, int stride) {
  double total = sum;
  for (int k = 0; k < count; k++) total += double(a[k]) * double(b[k * stride]);
  return total;
}

float sum_of_products(float sum, const float* a, const float* b, int count, int stride,
                      OperandFormat format) {
  const double exact = sum_in_float64(sum, a, b, count, stride);
  if (launch->arithmetic == TensorArithmetic::EXACT || !std::isfinite(exact)) return float(exact);
  const Hardware units = hardware();
  const int group = format.bytes == 2 ? units.group_of_16_bit : units.group_of_tf32;
  for (int k = 0; k < count; k += group) {
    if (!std::isfinite(sum)) break;  // an infinity stays: the other groups are finite
    sum = add_group(sum, a + k, b + k * stride, group, stride, format, units.extra_bits);
  }
  return sum;
}

}  // namespace emulator
