// Ending a launch with a message.
#pragma once
#include <string>

#include "state.h"

namespace emulator {

// What is known beyond the message: the instruction (or the runtime call's place), another one
// that it conflicts with, and the memory that they touch.
struct Evidence {
  const void* pc = nullptr;
  uint64_t other_pc = 0;  // relative to the module
  const void* address = nullptr;
  Site site{nullptr, 0};
};

// Of a failure in a runtime call of the current thread.
inline Evidence evidence_here(const void* address) {
  return Evidence{nullptr, 0, address, current->site};
}

[[noreturn]] void fail_with(Evidence evidence, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// In a message: the caller replaces "{shared 5}" by what lies there.
std::string name_of_shared(const void* address);
const char* file_name(const char* path);
void catch_signals();
void release_signals();

}  // namespace emulator
