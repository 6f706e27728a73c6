// setmaxnreg: the warpgroups of a block share its registers out anew.
#include "register_pools.h"

#include <cstring>

#include "checker.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

constexpr int MIN_REGISTERS = 24, MAX_REGISTERS = 256, REGISTER_STEP = 8;
constexpr uint32_t MAX_GROUPS = MAX_CLUSTER_THREADS / WARPGROUP;

struct WarpgroupRegisters {
  int count;  // of each thread; 0: not known
  int wanted;  // 0: nothing; setmaxnreg.inc waits for it
  uint32_t last_change[WARPGROUP];  // times of the threads
};

static WarpgroupRegisters warpgroups[MAX_GROUPS];
static int free_registers[MAX_CLUSTER];  // of a block, divided by the threads of a warpgroup

void reset_register_pools() {
  for (uint32_t g = 0; g * WARPGROUP < cluster_threads; g++) {
    warpgroups[g] = WarpgroupRegisters{};
    warpgroups[g].count = int(launch->registers);
  }
  for (int& registers : free_registers) registers = 0;
}

int registers_missing(uint32_t thread) {
  const WarpgroupRegisters& group = warpgroups[thread / WARPGROUP];
  return group.wanted - group.count - free_registers[threads[thread].block->rank];
}

static void require_valid_count(int count, bool more) {
  if (count < MIN_REGISTERS || count > MAX_REGISTERS || count % REGISTER_STEP) {
    fail("setmaxnreg: %d registers, expected a multiple of %d from %d to %d,", count,
         REGISTER_STEP, MIN_REGISTERS, MAX_REGISTERS);
  }
  const int present = warpgroups[current->id / WARPGROUP].count;
  if (present && (more ? count < present : count > present)) {
    fail("setmaxnreg.%s to %d registers, the warpgroup has %d,", more ? "inc" : "dec", count,
         present);
  }
}

static bool serve(uint32_t number) {
  WarpgroupRegisters& group = warpgroups[number];
  const int more = group.wanted - group.count;
  int& left = free_registers[current_block->rank];
  if (!group.wanted || more > left) return false;
  left -= more;
  group.count = group.wanted;
  group.wanted = 0;
  for (uint32_t i = 0; i < WARPGROUP; i++) make_ready(number * WARPGROUP + i);
  return true;
}

// The one that is changed, then those that wait, while registers last.
static void serve_waiting(uint32_t changed) {
  serve(changed);
  const uint32_t first = current_block->first_thread / WARPGROUP;
  for (uint32_t g = first; g < first + thread_count / WARPGROUP; g++) serve(g);
}

// A warpgroup must synchronise between two changes.
static void require_ordered_after_last_change(const WarpgroupRegisters& group, uint32_t first) {
  for (uint32_t i = 0; i < WARPGROUP && checking; i++) {
    if (first + i == current->id || group.last_change[i] <= current->knows->time[first + i]) {
      continue;
    }
    fail("setmaxnreg without a barrier of the warpgroup since the last one,");
  }
}

static bool is_the_same(const Thread& other) {
  return other.register_count == current->register_count &&
         other.register_increase == current->register_increase &&
         other.site.line == current->site.line && strcmp(other.site.file, current->site.file) == 0;
}

// Has the whole warpgroup come?
static bool is_complete(uint32_t first) {
  bool complete = true;
  for (uint32_t i = first; i < first + WARPGROUP; i++) {
    if (threads[i].state == State::EXITED) {
      fail("setmaxnreg, but thread %u of the warpgroup has exited,", i - first);
    }
    const bool here = threads[i].state == State::AT_SETMAXNREG;
    if (here && !is_the_same(threads[i])) {
      fail("setmaxnreg: thread %u of the warpgroup is in another one, at %s:%d, this one", i - first,
           file_name(threads[i].site.file), threads[i].site.line);
    }
    complete &= here;
  }
  return complete;
}

void set_max_registers(int count, bool more, Site site) {
  current->site = site;
  const uint32_t number = current->id / WARPGROUP, first = number * WARPGROUP;
  require_whole_warpgroup("setmaxnreg");
  WarpgroupRegisters& group = warpgroups[number];
  require_valid_count(count, more);
  require_ordered_after_last_change(group, first);
  current->state = State::AT_SETMAXNREG;
  current->register_count = count;
  current->register_increase = more;
  if (!is_complete(first)) return wait_for_turn();
  for (uint32_t i = 0; i < WARPGROUP && checking; i++) {
    group.last_change[i] = threads[first + i].time++;
  }
  if (!launch->registers) group.count = count;  // and the pool is not known: nothing lacks
  group.wanted = count;
  for (uint32_t i = first; i < first + WARPGROUP; i++) threads[i].state = State::AT_REGISTERS;
  serve_waiting(number);
  wait_for_turn();
}

}  // namespace emulator
