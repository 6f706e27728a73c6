// __syncthreads and named barriers.
#pragma once
#include "state.h"

namespace emulator {

void reset_barriers();
// A thread has exited: those that wait at __syncthreads may now be all that are left.
void release_block_barrier_of_survivors();

}  // namespace emulator
