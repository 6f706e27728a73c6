// How the runtime calls a kernel: its parameters by address, and its signature as text.
#pragma once
#include <cstdio>
#include <type_traits>
#include <utility>

#include "builtins.h"

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

namespace emulator {

template <class... Parameters, size_t... Index>
EMULATOR_UNCHECKED void call_unpacked(void (*kernel)(Parameters...), void** arguments,
                                      std::index_sequence<Index...>) {
  kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<Parameters>>*>(
      arguments[Index])...);
}

template <class... Parameters>
EMULATOR_UNCHECKED void call(void (*kernel)(Parameters...), void** arguments) {
  call_unpacked(kernel, arguments, std::index_sequence_for<Parameters...>());
}

// One letter and a size in bytes: P and p point to const and mutable elements of that size;
// b, i, u, f are scalars; s is anything passed by value as bytes.
template <class Parameter>
EMULATOR_UNCHECKED int describe_parameter(char* out) {
  if constexpr (std::is_pointer_v<Parameter>) {
    using Element = std::remove_pointer_t<Parameter>;
    size_t bytes = 1;
    if constexpr (!std::is_void_v<Element>) bytes = sizeof(Element);
    return sprintf(out, "%c%zu,", std::is_const_v<Element> ? 'P' : 'p', bytes);
  } else {
    const char kind = std::is_same_v<Parameter, bool>         ? 'b'
                      : std::is_floating_point_v<Parameter>   ? 'f'
                      : !std::is_integral_v<Parameter>        ? 's'
                      : std::is_signed_v<Parameter>           ? 'i'
                                                              : 'u';
    return sprintf(out, "%c%zu,", kind, sizeof(Parameter));
  }
}

template <class... Parameters>
EMULATOR_UNCHECKED void describe(void (*)(Parameters...), char* out) {
  *out = 0;
  ((out += describe_parameter<std::remove_cv_t<Parameters>>(out)), ...);
}

}  // namespace emulator
