// The time limit of a launch that runs in the caller's process.
#pragma once
#include "state.h"

namespace emulator {

void start_watchdog();
void stop_watchdog();

inline volatile bool deadline_passed;
[[noreturn]] void fail_at_deadline();
inline void check_deadline() {
  if (__builtin_expect(deadline_passed, false)) fail_at_deadline();
}

}  // namespace emulator
