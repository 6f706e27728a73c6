// Picks threads by the launch's schedule; finds deadlocks; lets late copies land when all wait.
#include "scheduler.h"

#include <cstring>
#include <map>
#include <string>

#include "barriers.h"
#include "bulk_copies.h"
#include "checker.h"
#include "clusters.h"
#include "failures.h"
#include "fibers.h"
#include "mbarriers.h"
#include "register_pools.h"
#include "watchdog.h"

namespace emulator {

struct Warps {
  uint32_t ready_lanes[MAX_WARPS], yielded_lanes[MAX_WARPS], ready_warps;
};

static Warps warps[MAX_CLUSTER];  // of each block
static uint32_t ready_blocks, running_blocks;
static void* launcher_stack;
static uint64_t random_state;

void seed_random(uint64_t cluster) {
  random_state = (launch->seed * 0x9E3779B97F4A7C15ull + cluster + 1) * 0xD1B54A32D192ED03ull | 1;
  random_number();
  random_number();
}

uint32_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return uint32_t(random_state >> 32);
}

static int nth_bit(uint32_t mask, uint32_t n) {
  while (n--) mask &= mask - 1;
  return __builtin_ctz(mask);
}

static int random_bit(uint32_t mask) {
  return nth_bit(mask, random_number() % uint32_t(__builtin_popcount(mask)));
}

static int choose_bit(uint32_t mask) {
  switch (launch->schedule) {
    case Schedule::ASCENDING:
      return __builtin_ctz(mask);
    case Schedule::DESCENDING:
      return 31 - __builtin_clz(mask);
    default:
      return random_bit(mask);
  }
}

void make_ready(uint32_t thread) {
  threads[thread].state = State::READY;
  const Block& block = *threads[thread].block;
  const uint32_t warp = (thread - block.first_thread) / WARP;
  warps[block.rank].ready_lanes[warp] |= lane_bit(thread % WARP);
  warps[block.rank].ready_warps |= lane_bit(warp);
  ready_blocks |= lane_bit(block.rank);
}

static std::string describe_state(const Thread& thread) {
  switch (thread.state) {
    case State::EXITED:
      return "exited";
    case State::AT_BARRIER:
      return "at the barrier";
    case State::IN_COLLECTIVE:
      return "in the warp function";
    case State::AT_MBARRIER:
      return describe_mbarrier_wait(thread);
    case State::AT_WGMMA_WAIT:
      return "waiting for wgmma";
    case State::AT_SETMAXNREG:
      return "in setmaxnreg without the rest of the warpgroup";
    case State::AT_CLUSTER_BARRIER:
      return "at the cluster barrier";
    case State::AT_REGISTERS:
      return "waiting for " + std::to_string(registers_missing(thread.id)) +
             " registers that no warpgroup gives back";
    default:
      return "elsewhere";
  }
}

[[noreturn]] static void report_deadlock() {
  std::map<std::string, int> counts;
  for (uint32_t rank = 0; rank < cluster_size; rank++) {
    const Inside inside(blocks[rank]);
    for (uint32_t i = 0; i < thread_count; i++) {
      const Thread& thread = threads[blocks[rank].first_thread + i];
      std::string text;
      if (cluster_size > 1) text = "of block " + std::to_string(rank) + " of the cluster ";
      text += describe_state(thread);
      if (thread.state != State::EXITED && thread.site.file) {
        text += std::string(" at ") + file_name(thread.site.file) + ":" +
                std::to_string(thread.site.line);
      }
      counts[text]++;
    }
  }
  std::string summary;
  for (const auto& [text, count] : counts) {
    summary += (summary.empty() ? "" : ", ") + std::to_string(count) + " threads " + text;
  }
  fail_with({}, "deadlock: %s", summary.c_str());
}

static bool wake_yielded() {
  for (uint32_t rank = 0; rank < cluster_size; rank++) {
    Warps& of_block = warps[rank];
    for (uint32_t warp = 0; warp < MAX_WARPS; warp++) {
      if (!of_block.yielded_lanes[warp]) continue;
      of_block.ready_lanes[warp] = of_block.yielded_lanes[warp];
      of_block.ready_warps |= lane_bit(warp);
      of_block.yielded_lanes[warp] = 0;
      ready_blocks |= lane_bit(rank);
    }
  }
  return ready_blocks != 0;
}

static Thread* next_thread() {
  for (;;) {
    if (ready_blocks) {
      const int rank = cluster_size == 1 ? 0 : choose_bit(ready_blocks);
      Warps& of_block = warps[rank];
      const int warp = choose_bit(of_block.ready_warps);
      const int lane = choose_bit(of_block.ready_lanes[warp]);
      of_block.ready_lanes[warp] &= ~lane_bit(lane);
      if (!of_block.ready_lanes[warp]) of_block.ready_warps &= ~lane_bit(warp);
      if (!of_block.ready_warps) ready_blocks &= ~lane_bit(rank);
      return &threads[blocks[rank].first_thread + warp * WARP + lane];
    }
    if (complete_one_bulk_copy()) continue;
    if (!wake_yielded()) report_deadlock();
  }
}

static void switch_to(Thread* thread, void** save_to) {
  current = thread;
  if (thread->block != current_block) enter_block(*thread->block);
  threadIdx = thread->index;
  shared_state->switches++;
  if (!thread->stack_pointer) prepare_fiber(*thread);
  thread->state = State::READY;
  emulator_switch(save_to, thread->stack_pointer);
}

void wait_for_turn() {
  check_deadline();
  Thread* waiting = current;
  Thread* next = next_thread();
  if (next == waiting) {
    waiting->state = State::READY;
    return;
  }
  switch_to(next, &waiting->stack_pointer);
}

void yield() {
  const uint32_t warp = id_in_block(*current) / WARP;
  warps[current->block->rank].yielded_lanes[warp] |= lane_bit(current->id % WARP);
  wait_for_turn();
}

uint32_t lane_index() { return current->id % WARP; }

static void start_thread(Block& block, uint32_t number) {
  Thread& thread = threads[block.first_thread + number];
  thread.index = Dim3{number % blockDim.x, number / blockDim.x % blockDim.y,
                      number / blockDim.x / blockDim.y};
  thread.id = block.first_thread + number;
  thread.block = &block;
  thread.stack_pointer = nullptr;
  thread.stack = nullptr;
  thread.operation = nullptr;
  thread.site = Site{nullptr, 0};
  make_ready(thread.id);
  thread.state = State::NEW;
  thread.copies.clear();
  thread.copy_groups.clear();
  thread.products.clear();
  thread.accumulators.clear();
  thread.product_groups.clear();
  thread.products_fenced = false;
  thread.mbarrier = nullptr;
}

void start_threads() {
  ready_blocks = 0;
  running_blocks = cluster_size;
  for (uint32_t rank = 0; rank < cluster_size; rank++) {
    warps[rank] = Warps{};
    blocks[rank].live_threads = thread_count;
    for (uint32_t i = 0; i < thread_count; i++) start_thread(blocks[rank], i);
  }
}

void run_threads() {
  threads_run = true;
  switch_to(next_thread(), &launcher_stack);
  threads_run = false;
}

void abandon_threads() {
  static void* abandoned;
  emulator_switch(&abandoned, launcher_stack);
  __builtin_unreachable();
}

}  // namespace emulator

extern "C" void emulator_run_thread() {
  using namespace emulator;
  kernel_entry(kernel_arguments);
  Thread* thread = current;
  thread->state = State::EXITED;
  thread->site = Site{nullptr, 0};
  const uint32_t left = --current_block->live_threads;
  if (!thread->products.empty()) fail("thread exits with wgmma products that nobody waited for");
  release_block_barrier_of_survivors();
  release_cluster_barrier_of_survivors();
  release_fiber(*thread);
  if (!left) {
    require_no_bulk_copies();
    if (checking) require_visits_seen();
    if (!--running_blocks) abandon_threads();
  }
  static void* abandoned;
  switch_to(next_thread(), &abandoned);
  __builtin_trap();
}
