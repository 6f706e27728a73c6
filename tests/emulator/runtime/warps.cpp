// Warp collectives (the last lane to arrive computes for all) and atomics.
#include <cstring>

#include "checker.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

static bool has_arrived(const Thread& lane, const Thread& caller) {
  return lane.state == State::IN_COLLECTIVE && lane.mask == caller.mask &&
         lane.collective == caller.collective && lane.site.line == caller.site.line &&
         strcmp(lane.site.file, caller.site.file) == 0;
}

static void order_lanes(Thread* lanes, uint32_t mask) {
  VectorClock* clock = copy_clock(current->knows);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    Thread& lane = lanes[__builtin_ctz(rest)];
    if (lane.knows != current->knows) join_clock(clock, lane.knows);
    join_thread(clock, lane);
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    Thread& lane = lanes[__builtin_ctz(rest)];
    lane.time++;
    set_clock(lane, clock);
  }
  drop_clock(clock);
}

void warp_collective(Collective kind, uint32_t mask, void* operation, CollectiveBody body,
                     Site site) {
  const uint32_t first = current->id / WARP * WARP, own = current->id % WARP;
  Thread* lanes = &threads[first];
  current->site = site;
  if (!(mask >> own & 1)) {
    fail("lane %u calls a warp function with the mask %08x, which does not name it", own, mask);
  }
  const uint32_t lanes_in_block = current->block->first_thread + thread_count - first;
  if (lanes_in_block < WARP) mask &= lane_bit(lanes_in_block) - 1;
  current->mask = mask;
  current->collective = kind;
  current->operation = operation;
  current->state = State::IN_COLLECTIVE;
  void* operations[WARP];
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int index = __builtin_ctz(rest);
    if (lanes[index].state == State::EXITED) {
      fail("warp function with the mask %08x, but lane %d has exited,", mask, index);
    }
    if (!has_arrived(lanes[index], *current)) return wait_for_turn();
    operations[index] = lanes[index].operation;
  }
  if (body) body(operations, mask);
  if (checking && kind == Collective::SYNCWARP) order_lanes(lanes, mask);
  for (uint32_t rest = mask & ~lane_bit(own); rest; rest &= rest - 1) {
    make_ready(first + uint32_t(__builtin_ctz(rest)));
  }
  current->state = State::READY;
}

void atomic(void* address, int bytes, void (*update)(void*, void*), void* argument) {
  if (checking) check_access(address, bytes, Access::ATOMIC, __builtin_return_address(0));
  const bool locked = launch->workers > 1;  // blocks run in other processes
  while (locked && __atomic_exchange_n(&shared_state->atomic_lock, 1u, __ATOMIC_ACQUIRE)) {
  }
  update(address, argument);
  if (locked) __atomic_store_n(&shared_state->atomic_lock, 0u, __ATOMIC_RELEASE);
}

}  // namespace emulator
