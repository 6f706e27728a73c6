// Transaction barriers: what else than a kernel's calls changes them, or asks for them.
#pragma once
#include <string>

#include "state.h"

namespace emulator {

struct LandedCopy {
  uint32_t bytes;
  uint32_t phase;         // of the mbarrier when it was issued
  uint32_t thread, time;  // the issuer, and what it knew
  const VectorClock* knows;
};

void forget_mbarriers();
// At the cluster's barrier: what those that wait have initialised and fenced, all see.
void publish_fenced_mbarriers();
// Fails where a copy must not name the mbarrier; the number of its phase.
uint32_t mbarrier_phase_for_copy(const uint64_t* barrier);
void mbarrier_count_bytes(uint64_t* barrier, const LandedCopy& copy);
std::string describe_mbarrier_wait(const Thread& thread);

}  // namespace emulator
