// The registers of each block, which setmaxnreg moves between its warpgroups.
#pragma once
#include "state.h"

namespace emulator {

void reset_register_pools();
// How many registers a thread that waits for some lacks, where others have none to spare.
int registers_missing(uint32_t thread);

}  // namespace emulator
