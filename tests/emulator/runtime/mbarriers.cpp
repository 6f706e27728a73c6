// mbarrier: a phase ends when all arrivals are in and all expected bytes have landed.
#include <map>

#include "bulk_copies.h"
#include "checker.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

struct Mbarrier {  // what a kernel's 8 bytes hold
  int32_t missing_bytes;
  uint16_t pending;
  uint16_t count_and_phase;  // expected arrivals, then one bit of phase
  uint32_t phase() const { return count_and_phase & 1; }
  uint16_t expected() const { return count_and_phase >> 1; }
};
static_assert(sizeof(Mbarrier) == sizeof(uint64_t), "an mbarrier has 8 bytes");

static std::map<uint64_t*, VectorClock*> clocks;  // what those that arrived knew

static Mbarrier& view(uint64_t* barrier) { return *reinterpret_cast<Mbarrier*>(barrier); }

void forget_mbarriers() {
  for (auto& [barrier, clock] : clocks) drop_clock(clock);
  clocks.clear();
}

void mbarrier_release(uint64_t* barrier, const VectorClock* knows, uint32_t thread,
                      uint32_t time) {
  if (!checking) return;
  VectorClock*& clock = clocks[barrier];
  if (!clock) clock = new_empty_clock();
  join_clock(clock, knows);
  clock->time[thread] = std::max(clock->time[thread], time);
}

static void end_phase_if_complete(uint64_t* barrier) {
  Mbarrier& state = view(barrier);
  if (state.pending || state.missing_bytes) return;
  state.count_and_phase ^= 1;
  state.pending = state.expected();
  for (uint32_t i = 0; i < thread_count; i++) {
    const Thread& thread = threads[i];
    if (thread.state == State::AT_MBARRIER && thread.mbarrier == barrier &&
        thread.parity != state.phase()) {
      make_ready(i);
    }
  }
}

void mbarrier_count_bytes(uint64_t* barrier, uint32_t bytes) {
  view(barrier).missing_bytes -= int32_t(bytes);
  end_phase_if_complete(barrier);
}

void mbarrier_require_valid(uint64_t* barrier, const char* what) {
  if (!shared_memory.holds(address_of(barrier))) {
    fail_with(evidence_here(barrier), "%s on an mbarrier that is not in shared memory", what);
  }
  const Mbarrier& state = view(barrier);
  if (!state.expected() || state.pending > state.expected()) {
    fail_with(evidence_here(barrier), "%s on an mbarrier that was not initialised", what);
  }
  if (checking && !last_write_is_visible(barrier)) {
    fail_with(evidence_here(barrier),
              "%s on an mbarrier whose initialisation is not ordered before", what);
  }
}

void mbarrier_init(uint64_t* barrier, uint32_t count, Site site) {
  current->site = site;
  if (checking) check_access(barrier, sizeof *barrier, Access::WRITE, nullptr);
  view(barrier) = Mbarrier{0, uint16_t(count), uint16_t(count << 1)};
}

void mbarrier_arrive(uint64_t* barrier, uint32_t expected_bytes, Site site) {
  current->site = site;
  mbarrier_require_valid(barrier, "arrival");
  mbarrier_release(barrier, current->knows, current->id, current->time);
  current->time++;
  Mbarrier& state = view(barrier);
  if (!state.pending) fail_with(evidence_here(barrier), "too many arrivals on an mbarrier");
  state.missing_bytes += int32_t(expected_bytes);
  state.pending--;
  end_phase_if_complete(barrier);
}

void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site site) {
  current->site = site;
  mbarrier_require_valid(barrier, "wait");
  if (view(barrier).phase() == parity) {
    current->state = State::AT_MBARRIER;
    current->mbarrier = barrier;
    current->parity = parity;
    wait_for_turn();
  }
  if (!checking || !clocks.count(barrier)) return;
  VectorClock* clock = copy_clock(current->knows);
  join_clock(clock, clocks[barrier]);
  set_clock(*current, clock);
  drop_clock(clock);
}

}  // namespace emulator
