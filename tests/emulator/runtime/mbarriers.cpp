// mbarrier: a phase ends when all arrivals are in and all expected bytes have landed.
#include "mbarriers.h"

#include <cstring>
#include <map>

#include "checker.h"
#include "clusters.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

constexpr int COUNT_BITS = 20;
constexpr int64_t MAX_COUNT = (1 << COUNT_BITS) - 1;  // arrivals, and bytes

struct Mbarrier {  // what a kernel's 8 bytes hold
  int64_t missing_bytes : COUNT_BITS + 2;
  uint64_t pending : COUNT_BITS;
  uint64_t expected : COUNT_BITS;
  uint64_t phase : 1;
};
static_assert(sizeof(Mbarrier) == sizeof(uint64_t), "an mbarrier has 8 bytes");

struct Record {
  Mbarrier state;  // what the 8 bytes must hold
  uint32_t phases;  // that have ended
  uint32_t initialiser, init_time;
  bool published;  // to all threads of the cluster
  VectorClock* clock;     // what those knew that arrived in phases that have ended,
  VectorClock* arriving;  // and in the present one
};

static std::map<const uint64_t*, Record> records;

void forget_mbarriers() {
  for (auto& [barrier, record] : records) {
    drop_clock(record.clock);
    drop_clock(record.arriving);
  }
  records.clear();
}

static bool is_fenced(const Record& record) {
  return record.init_time <= threads[record.initialiser].init_fenced_time;
}

void publish_fenced_mbarriers() {
  for (auto& [barrier, record] : records) {
    const bool waits = threads[record.initialiser].state == State::AT_CLUSTER_BARRIER;
    record.published |= waits && is_fenced(record);
  }
}

static void store(uint64_t* barrier, const Record& record) {
  memcpy(barrier, &record.state, sizeof record.state);
}

static void release(Record& record, const VectorClock* knows, uint32_t thread, uint32_t time) {
  if (!checking) return;
  if (!record.arriving) record.arriving = new_empty_clock();
  join_clock(record.arriving, knows);
  record.arriving->time[thread] = std::max(record.arriving->time[thread], time);
}

// A wait that sees the end of a phase is ordered after its arrivals, not after those of the next.
static void order_ended_phase(Record& record) {
  if (!record.arriving) return;
  if (record.clock) join_clock(record.arriving, record.clock);
  drop_clock(record.clock);
  record.clock = record.arriving;
  record.arriving = nullptr;
}

// A thread that was woken and has not run yet would take the next phase for the one it awaits.
static void require_seen(const uint64_t* barrier, const Thread& thread) {
  if (thread.state != State::READY) return;
  fail_with(evidence_here(barrier),
            "a phase of an mbarrier ends before thread (%u,%u,%u) has seen the end of the last one",
            thread.index.x, thread.index.y, thread.index.z);
}

static void end_phase_if_complete(uint64_t* barrier, Record& record) {
  Mbarrier& state = record.state;
  if (state.missing_bytes < 0 && !state.pending) {
    fail_with(evidence_here(barrier), "%d bytes more land than the mbarrier expects",
              int(-state.missing_bytes));
  }
  if (!state.pending && !state.missing_bytes) {
    state.phase ^= 1;
    state.pending = state.expected;
    record.phases++;
    order_ended_phase(record);
    for (uint32_t i = 0; i < thread_count; i++) {
      const Thread& thread = threads[current_block->first_thread + i];
      if (thread.mbarrier != barrier) continue;
      require_seen(barrier, thread);
      if (thread.parity != state.phase) make_ready(thread.id);
    }
  }
  store(barrier, record);
}

static Record& valid_record(const uint64_t* barrier, const char* what) {
  if (!shared_memory.holds(address_of(barrier))) {
    fail_with(evidence_here(barrier), "%s on an mbarrier that is not in shared memory", what);
  }
  const auto found = records.find(barrier);
  if (found == records.end()) {
    fail_with(evidence_here(barrier), "%s on an mbarrier that was not initialised", what);
  }
  if (memcmp(barrier, &found->second.state, sizeof(Mbarrier)) != 0) {
    fail_with(evidence_here(barrier), "%s on an mbarrier whose memory was overwritten", what);
  }
  if (checking && !found->second.published && !last_write_is_visible(barrier)) {
    fail_with(evidence_here(barrier),
              "%s on an mbarrier whose initialisation is not ordered before", what);
  }
  return found->second;
}

// ---- what kernels call

void mbarrier_init(uint64_t* barrier, uint32_t count, Site site) {
  current->site = site;
  if (address_of(barrier) % sizeof *barrier) {
    fail_with(evidence_here(barrier), "mbarrier.init: misaligned mbarrier");
  }
  if (!count || count > MAX_COUNT) {
    fail_with(evidence_here(barrier), "mbarrier.init: %u arrivals, expected 1 to %d", count,
              int(MAX_COUNT));
  }
  if (records.count(barrier)) {
    fail_with(evidence_here(barrier), "mbarrier.init of an mbarrier that is in use");
  }
  if (checking) check_access(barrier, sizeof *barrier, Access::WRITE, nullptr);
  Record record{{}, 0, current->id, current->time, false, nullptr, nullptr};
  record.state.pending = record.state.expected = count;
  records[barrier] = record;
  store(barrier, record);
}

void fence_mbarrier_init() {
  current->init_fenced_time = current->time;
  current->time++;
}

void mbarrier_arrive(uint64_t* barrier, uint32_t expected_bytes, Site site) {
  current->site = site;
  Record& record = valid_record(barrier, "arrival");
  release(record, current->knows, current->id, current->time);
  current->time++;
  Mbarrier& state = record.state;
  if (!state.pending) fail_with(evidence_here(barrier), "too many arrivals on an mbarrier");
  const int64_t bytes = state.missing_bytes + int64_t(expected_bytes);
  if (bytes > MAX_COUNT) {
    fail_with(evidence_here(barrier), "an mbarrier expects more than %d bytes", int(MAX_COUNT));
  }
  state.missing_bytes = bytes;
  state.pending--;
  end_phase_if_complete(barrier, record);
}

void mbarrier_arrive_in_cluster(uint64_t* barrier, uint32_t rank, Site site) {
  current->site = site;
  Block& block = block_to_visit(rank, "arrival on an mbarrier");
  auto* there = reinterpret_cast<uint64_t*>(counterpart(barrier, block));
  const Inside inside(block);
  mbarrier_arrive(there, 0, site);
}

void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site site) {
  current->site = site;
  Record& record = valid_record(barrier, "wait");
  if (parity > 1) {
    fail_with(evidence_here(barrier), "wait on an mbarrier for the parity %u, expected 0 or 1",
              parity);
  }
  if (record.state.phase == parity) {
    current->state = State::AT_MBARRIER;
    current->mbarrier = barrier;
    current->parity = parity;
    wait_for_turn();
    current->mbarrier = nullptr;
  }
  if (!checking || !record.clock) return;
  VectorClock* clock = copy_clock(current->knows);
  join_clock(clock, record.clock);
  set_clock(*current, clock);
  drop_clock(clock);
}

// ---- what bulk copies do

uint32_t mbarrier_phase_for_copy(const uint64_t* barrier) {
  const Record& record = valid_record(barrier, "TMA");
  if (checking && record.init_time > threads[record.initialiser].fenced_time &&
      !is_fenced(record)) {
    fail_with(evidence_here(barrier), "TMA on an mbarrier whose initialisation was not fenced");
  }
  return record.phases;
}

void mbarrier_count_bytes(uint64_t* barrier, const LandedCopy& copy) {
  Record& record = valid_record(barrier, "TMA");
  release(record, copy.knows, copy.thread, copy.time);
  Mbarrier& state = record.state;
  if (record.phases != copy.phase) {
    fail_with(evidence_here(barrier),
              "TMA: %u bytes land when the phase that should count them has ended", copy.bytes);
  }
  const int64_t missing = state.missing_bytes - int64_t(copy.bytes);
  if (missing < -MAX_COUNT) {
    fail_with(evidence_here(barrier), "more than %d bytes land on an mbarrier", int(MAX_COUNT));
  }
  state.missing_bytes = missing;
  end_phase_if_complete(barrier, record);
}

std::string describe_mbarrier_wait(const Thread& thread) {
  const Mbarrier& state = records.at(thread.mbarrier).state;
  std::string text = "waiting on the mbarrier " + name_of_shared(thread.mbarrier) +
                     " for parity " + std::to_string(thread.parity) + ", which lacks " +
                     std::to_string(state.pending) + " of " + std::to_string(state.expected) +
                     " arrivals and " + std::to_string(state.missing_bytes) + " bytes,";
  return text;
}

}  // namespace emulator
