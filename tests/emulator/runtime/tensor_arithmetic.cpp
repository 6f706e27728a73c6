// EXACT: summed in float64 and rounded once, to nearest.
//
// HOPPER, AMPERE: addends, the accumulator among them, are aligned to the largest exponent in a
// group, truncated (towards zero) some bits behind a float32's last, and added without error; the
// sum is truncated to a float32. Products are not normalised: their exponent is the sum of those of
// the factors. The result is the accumulator of the next group.
#include "tensor_arithmetic.h"

#include <algorithm>
#include <cmath>

namespace emulator {

constexpr int FRACTION = 23;  // bits of a float32 behind the point
constexpr int MIN_EXPONENT = -126, LOWEST_BIT = -149;
constexpr int NO_EXPONENT = INT32_MIN / 4;  // of zeros: they align nothing, nor do products
constexpr int MIN_PRODUCT = NO_EXPONENT / 2;

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
              biased ? int(biased) - 127 : MIN_EXPONENT, (bits >> 31) != 0};
  if (parts.exponent < least_exponent) {  // a subnormal number of a narrower format
    parts.significand >>= least_exponent - parts.exponent;
    parts.exponent = least_exponent;
  }
  return parts;
}

// The parts of the items of a tile, one array a part; the signs are 0 or -1.
struct TileParts {
  uint64_t significands[MAX_DEPTH * MAX_COLUMNS];
  int64_t signs[MAX_DEPTH * MAX_COLUMNS];
  int32_t exponents[MAX_DEPTH * MAX_COLUMNS];
};

static void take_apart_tile(const float* items, int count, int least_exponent, TileParts& out) {
  for (int i = 0; i < count; i++) {
    const Parts parts = take_apart(items[i], least_exponent);
    out.significands[i] = parts.significand;
    out.signs[i] = -int64_t(parts.negative);
    out.exponents[i] = parts.exponent;
  }
}

static uint64_t shifted(uint64_t significand, int left) {
  if (left >= 0) return significand << left;
  return left > -64 ? significand >> -left : 0;
}

// 2^exponent, of a normal float64
static double power_of_two(int exponent) {
  const uint64_t bits = uint64_t(exponent + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// sum * 2^unit, truncated to a float32
static float truncated(int64_t sum, int unit) {
  if (sum == 0) return 0.0f;
  auto magnitude = uint64_t(sum < 0 ? -sum : sum);
  const int bits = 64 - __builtin_clzll(magnitude);
  const int drop = std::max({bits - (FRACTION + 1), LOWEST_BIT - unit, 0});
  if (drop > 63) return 0.0f;
  magnitude >>= drop;
  const auto value = float(double(magnitude) * power_of_two(unit + drop));
  return sum < 0 ? -value : value;
}

constexpr int ROWS_AT_ONCE = 4, COLUMNS_AT_ONCE = 8;  // that registers of the host hold

static void add_in_float64(double* sums, const float* a, const double* b, TileShape shape) {
  for (int column = 0; column < shape.columns; column += COLUMNS_AT_ONCE) {
    double part[ROWS_AT_ONCE][COLUMNS_AT_ONCE];
    for (int row = 0; row < ROWS_AT_ONCE; row++) {
      memcpy(part[row], sums + row * shape.columns + column, sizeof part[row]);
    }
    for (int k = 0; k < shape.depth; k++) {
      const double* from_b = b + k * shape.columns + column;
      for (int row = 0; row < ROWS_AT_ONCE; row++) {
        const double from_a = a[row * shape.depth + k];
        for (int i = 0; i < COLUMNS_AT_ONCE; i++) part[row][i] += from_a * from_b[i];
      }
    }
    for (int row = 0; row < ROWS_AT_ONCE; row++) {
      memcpy(sums + row * shape.columns + column, part[row], sizeof part[row]);
    }
  }
}

// Adds items `first` to `first` + `count` of a row of a and of COLUMNS_AT_ONCE columns of b.
static void add_group(float* sums, const TileParts& a, const TileParts& b, int a_start,
                      int b_start, int count, int b_pitch, int extra_bits) {
  Parts accumulators[COLUMNS_AT_ONCE];
  int32_t largest[COLUMNS_AT_ONCE];
  int64_t totals[COLUMNS_AT_ONCE] = {};
  for (int i = 0; i < COLUMNS_AT_ONCE; i++) {
    accumulators[i] = take_apart(sums[i], MIN_EXPONENT);
    largest[i] = accumulators[i].exponent;
  }
  for (int k = 0; k < count; k++) {
    const int32_t exponent = a.exponents[a_start + k];
    const int32_t* exponents = b.exponents + b_start + k * b_pitch;
    for (int i = 0; i < COLUMNS_AT_ONCE; i++) {
      largest[i] = std::max(largest[i], exponent + exponents[i]);
    }
  }
  for (int k = 0; k < count; k++) {
    const uint64_t significand = a.significands[a_start + k];
    const int64_t sign = a.signs[a_start + k];
    const int32_t exponent = a.exponents[a_start + k];
    const int from = b_start + k * b_pitch;
    for (int i = 0; i < COLUMNS_AT_ONCE; i++) {
      const int32_t below = largest[i] - exponent - b.exponents[from + i];
      const int32_t right = std::min(FRACTION - extra_bits + below, 63);  // 48 bits: nothing left
      const auto magnitude = int64_t(significand * b.significands[from + i] >> right);
      const int64_t negative = sign ^ b.signs[from + i];
      totals[i] += (magnitude ^ negative) - negative;
    }
  }
  for (int i = 0; i < COLUMNS_AT_ONCE; i++) {
    const Parts& own = accumulators[i];
    if (largest[i] < MIN_PRODUCT || !std::isfinite(sums[i])) continue;
    const int unit = largest[i] - FRACTION - extra_bits;
    const auto magnitude = int64_t(shifted(own.significand, own.exponent - FRACTION - unit));
    sums[i] = truncated(totals[i] + (own.negative ? -magnitude : magnitude), unit);
  }
}

// Rows from `first` on, where the exact sum is finite; elsewhere it is the result.
static void add_in_groups(float* d, const double* exact, const TileParts& a, const TileParts& b,
                          int first, TileShape shape, OperandFormat format) {
  const Hardware units = hardware();
  const int group = format.bytes == 2 ? units.group_of_16_bit : units.group_of_tf32;
  for (int row = 0; row < ROWS_AT_ONCE; row++) {
    for (int column = 0; column < shape.columns; column += COLUMNS_AT_ONCE) {
      const int start = row * shape.columns + column;
      float sums[COLUMNS_AT_ONCE];
      memcpy(sums, d + start, sizeof sums);
      for (int k = 0; k < shape.depth; k += group) {
        add_group(sums, a, b, (first + row) * shape.depth + k, k * shape.columns + column, group,
                  shape.columns, units.extra_bits);
      }
      for (int i = 0; i < COLUMNS_AT_ONCE; i++) {
        d[start + i] = std::isfinite(exact[start + i]) ? sums[i] : float(exact[start + i]);
      }
    }
  }
}

void multiply_add(float* d, const float* a, const float* b, TileShape shape,
                  OperandFormat format) {
  static double wide_b[MAX_DEPTH * MAX_COLUMNS], exact[ROWS_AT_ONCE * MAX_COLUMNS];
  static TileParts parts_of_a, parts_of_b;
  const bool rounds_once = launch->arithmetic == TensorArithmetic::EXACT;
  std::copy_n(b, shape.depth * shape.columns, wide_b);
  if (!rounds_once) {
    take_apart_tile(a, shape.rows * shape.depth, format.least_exponent, parts_of_a);
    take_apart_tile(b, shape.depth * shape.columns, format.least_exponent, parts_of_b);
  }
  const int results = ROWS_AT_ONCE * shape.columns;
  for (int row = 0; row < shape.rows; row += ROWS_AT_ONCE, d += results) {
    std::copy_n(d, results, exact);
    add_in_float64(exact, a + row * shape.depth, wide_b, shape);
    if (rounds_once) {
      std::copy_n(exact, results, d);
    } else {
      add_in_groups(d, exact, parts_of_a, parts_of_b, row, shape, format);
    }
  }
}

}  // namespace emulator
