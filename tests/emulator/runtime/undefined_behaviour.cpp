// What g++ -fsanitize=undefined calls when it finds some. libubsan itself is not linked.
#include "failures.h"

namespace {

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};

struct TypeDescriptor {
  uint16_t kind, info;
  char name[1];
};

struct OverflowData {
  SourceLocation location;
  const TypeDescriptor* type;
};

struct ShiftData {
  SourceLocation location;
  const TypeDescriptor* value_type;
  const TypeDescriptor* count_type;
};

struct BoundsData {
  SourceLocation location;
  const TypeDescriptor* array_type;
  const TypeDescriptor* index_type;
};

struct MismatchData {
  SourceLocation location;
  const TypeDescriptor* type;
  uint8_t log_alignment, kind;
};

using emulator::fail_with;
using emulator::file_name;

// Integers of up to 64 bits arrive by value, in a machine word.
long long as_integer(const TypeDescriptor* type, uint64_t word) {
  const unsigned bits = 1u << (type->info >> 1);
  if (bits >= 64) return static_cast<long long>(word);
  const uint64_t mask = (uint64_t(1) << bits) - 1;
  const bool negative = (type->info & 1) && (word >> (bits - 1) & 1);
  return static_cast<long long>(negative ? word | ~mask : word & mask);
}

[[noreturn]] void overflow(const OverflowData* data, uint64_t a, const char* sign, uint64_t b) {
  fail_with({}, "signed overflow: %lld %s %lld in %s at %s:%u", as_integer(data->type, a), sign,
            as_integer(data->type, b), data->type->name, file_name(data->location.file),
            data->location.line);
}

}  // namespace

EMULATOR_API void __ubsan_handle_add_overflow_abort(OverflowData* data, uint64_t a, uint64_t b) {
  overflow(data, a, "+", b);
}
EMULATOR_API void __ubsan_handle_sub_overflow_abort(OverflowData* data, uint64_t a, uint64_t b) {
  overflow(data, a, "-", b);
}
EMULATOR_API void __ubsan_handle_mul_overflow_abort(OverflowData* data, uint64_t a, uint64_t b) {
  overflow(data, a, "*", b);
}
EMULATOR_API void __ubsan_handle_negate_overflow_abort(OverflowData* data, uint64_t a) {
  fail_with({}, "signed overflow: -(%lld) in %s at %s:%u", as_integer(data->type, a),
            data->type->name, file_name(data->location.file), data->location.line);
}
EMULATOR_API void __ubsan_handle_divrem_overflow_abort(OverflowData* data, uint64_t a, uint64_t b) {
  const bool by_zero = as_integer(data->type, b) == 0;
  fail_with({}, "%s: %lld / %lld in %s at %s:%u",
            by_zero ? "integer division by zero" : "signed overflow", as_integer(data->type, a),
            as_integer(data->type, b), data->type->name, file_name(data->location.file),
            data->location.line);
}
EMULATOR_API void __ubsan_handle_shift_out_of_bounds_abort(ShiftData* data, uint64_t value,
                                                           uint64_t count) {
  fail_with({}, "shift of %lld (%s) by %lld at %s:%u", as_integer(data->value_type, value),
            data->value_type->name, as_integer(data->count_type, count),
            file_name(data->location.file), data->location.line);
}
EMULATOR_API void __ubsan_handle_out_of_bounds_abort(BoundsData* data, uint64_t index) {
  fail_with({}, "out-of-bounds index %lld of an array of type %s at %s:%u",
            as_integer(data->index_type, index), data->array_type->name,
            file_name(data->location.file), data->location.line);
}
EMULATOR_API void __ubsan_handle_type_mismatch_v1_abort(MismatchData* data, void* address) {
  fail_with({nullptr, 0, address}, "misaligned access: %s needs %u bytes' alignment, at %s:%u",
            data->type->name, 1u << data->log_alignment, file_name(data->location.file),
            data->location.line);
}
