// Barriers: count arrivals, compare where they stand, release, and order what came before.
#include "barriers.h"

#include <cstring>

#include "checker.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

struct Barrier {
  uint32_t arrived;
  int expected;  // threads, or ALL_THREADS
  Site site;
  std::vector<uint32_t> waiting, arrivals;
  uint32_t lanes[MAX_WARPS];  // that have arrived
  int true_predicates, result;
};

constexpr int BARRIERS = 16;
static Barrier barriers[MAX_CLUSTER][BARRIERS];

void reset_barriers() {
  for (uint32_t i = 0; i < cluster_size; i++) {
    for (Barrier& barrier : barriers[i]) {
      barrier.arrived = 0;
      barrier.true_predicates = 0;
      barrier.waiting.clear();
      barrier.arrivals.clear();
      memset(barrier.lanes, 0, sizeof barrier.lanes);
    }
  }
}

// bar.sync and bar.arrive are for all threads of a warp.
static void require_whole_warps(const Barrier& barrier) {
  for (uint32_t warp = 0; warp < MAX_WARPS; warp++) {
    const uint32_t lanes = barrier.lanes[warp];
    if (!lanes || lanes == UINT32_MAX || thread_count - warp * WARP < WARP) continue;
    const Barrier* first = barriers[current_block->rank];
    fail("barrier %d completes with %d threads of warp %u,", int(&barrier - first),
         __builtin_popcount(lanes), warp);
  }
}

static void order_arrivals(Barrier& barrier) {
  VectorClock* clock = new_empty_clock();
  if (barrier.expected == ALL_THREADS && cluster_size == 1) {
    for (uint32_t i = 0; i < thread_count; i++) clock->time[i] = threads[i].time;
  } else {
    const VectorClock* joined = nullptr;
    for (uint32_t id : barrier.arrivals) {
      if (threads[id].knows != joined) join_clock(clock, threads[id].knows);
      joined = threads[id].knows;
      join_thread(clock, threads[id]);
    }
  }
  for (uint32_t id : barrier.arrivals) threads[id].time++;
  for (uint32_t id : barrier.waiting) set_clock(threads[id], clock);
  drop_clock(clock);
}

static void release_if_complete(Barrier& barrier) {
  const bool whole_block = barrier.expected == ALL_THREADS;
  const uint32_t live_threads = current_block->live_threads;
  const uint32_t expected = whole_block ? live_threads : uint32_t(barrier.expected);
  if (!barrier.arrived || barrier.arrived < expected) return;
  if (checking && whole_block && live_threads < thread_count) {
    fail_with({}, "divergent barrier: __syncthreads() at %s:%d is reached by %u threads, "
              "the other %u have exited",
              file_name(barrier.site.file), barrier.site.line, live_threads,
              thread_count - live_threads);
  }
  if (!whole_block) require_whole_warps(barrier);
  if (checking) order_arrivals(barrier);
  for (uint32_t id : barrier.waiting) make_ready(id);
  barrier.result = barrier.true_predicates;
  barrier.true_predicates = 0;
  barrier.arrived = 0;
  barrier.waiting.clear();
  barrier.arrivals.clear();
  memset(barrier.lanes, 0, sizeof barrier.lanes);
}

static void arrive(Barrier& barrier, int id, int count, bool wait, Site site) {
  current->site = site;
  if (barrier.arrived && barrier.expected != count) {
    fail("barrier %d is used with %d threads here and with %d at %s:%d", id, count,
         barrier.expected, file_name(barrier.site.file), barrier.site.line);
  }
  if (barrier.arrived && count == ALL_THREADS &&
      (barrier.site.line != site.line || strcmp(barrier.site.file, site.file) != 0)) {
    fail("divergent barrier: other threads wait in __syncthreads() at %s:%d, this one",
         file_name(barrier.site.file), barrier.site.line);
  }
  barrier.expected = count;
  barrier.site = site;
  barrier.arrived++;
  barrier.arrivals.push_back(current->id);
  uint32_t& lanes = barrier.lanes[id_in_block(*current) / WARP];
  const uint32_t own = lane_bit(current->id % WARP);
  if (lanes & own) fail("barrier %d: this thread arrives again before the barrier completes,", id);
  lanes |= own;
  if (wait) {
    current->state = State::AT_BARRIER;
    barrier.waiting.push_back(current->id);
  }
  release_if_complete(barrier);
  if (wait) wait_for_turn();
}

void barrier(int id, int count, bool wait, Site site) {
  current->site = site;
  if (id < 0 || id >= BARRIERS) fail("barrier %d: the numbers are 0 to 15", id);
  if (count != ALL_THREADS && (count <= 0 || count % int(WARP) != 0)) {
    fail("barrier %d is used with %d threads, not a multiple of %u", id, count, WARP);
  }
  arrive(barriers[current_block->rank][id], id, count, wait, site);
}

int barrier_count(int predicate, Site site) {
  Barrier& barrier = barriers[current_block->rank][0];
  barrier.true_predicates += predicate != 0;
  arrive(barrier, 0, ALL_THREADS, true, site);
  return barrier.result;
}

void release_block_barrier_of_survivors() {
  Barrier& barrier = barriers[current_block->rank][0];
  if (barrier.arrived && barrier.expected == ALL_THREADS) release_if_complete(barrier);
}

}  // namespace emulator
