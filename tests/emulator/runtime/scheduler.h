// Threads of a block as fibers, and which of them runs next.
#pragma once
#include "state.h"

namespace emulator {

void start_threads();  // all threads of the cluster ready, none started
void run_threads();          // returns when all have exited
[[noreturn]] void abandon_threads();  // makes run_threads() return at once
void make_ready(uint32_t thread);
void wait_for_turn();  // the current thread runs again when somebody readies it
void seed_random(uint64_t cluster);
uint32_t random_number();

inline bool threads_run;  // and not the launcher
inline void (*kernel_entry)(void** arguments);
inline void** kernel_arguments;

}  // namespace emulator
