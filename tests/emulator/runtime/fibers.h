// Stacks and the switch between them.
#pragma once
#include "state.h"

extern "C" EMULATOR_HIDDEN void emulator_switch(void** save_to, void* stack_pointer);
extern "C" EMULATOR_HIDDEN void emulator_run_thread();  // what a new fiber runs; never returns

namespace emulator {

void lay_out_stacks();  // one for every thread of a cluster
void prepare_fiber(Thread& thread);
void release_fiber(Thread& thread);

}  // namespace emulator
