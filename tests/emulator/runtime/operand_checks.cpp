// Operands of wgmma: read by the first lane of each warp, which stands for it in the checker.
#include "cells.h"
#include "checker.h"
#include "failures.h"

namespace emulator {

static const Thread* reading_group;
static VectorClock* known_to_all;  // to the first lanes of all four warps
static uint32_t group_read;

void start_operand_reads(const Thread* warpgroup) {
  reading_group = warpgroup;
  WarpgroupRead read;
  drop_clock(known_to_all);
  known_to_all = copy_clock(warpgroup->knows);
  for (uint32_t i = 0; i < cluster_threads; i++) {
    uint32_t& least = known_to_all->time[i];
    least = UINT32_MAX;
    for (uint32_t warp = 0; warp < WARPGROUP / WARP; warp++) {
      const Thread& lane = warpgroup[warp * WARP];
      if (lane.id != i) least = std::min(least, lane.knows->time[i]);
      read.time[warp] = lane.time;
    }
  }
  group_read = uint32_t(warpgroup_reads.size());
  warpgroup_reads.push_back(read);
}

// Without a failure: false where something is wrong or unusual.
static bool operand_is_good(const Cell* cell, const uint32_t* known, uint32_t self) {
  for (uint32_t i = 0; i < OPERAND_BYTES / SHARED_CELL_BYTES; i++, cell++) {
    constexpr int UNUSUAL = UNCHECKED | FOREIGN | COPY_PENDING | MIXED_CLUSTERS;
    if ((cell->flags & (UNUSUAL | INITIALISED)) != INITIALISED) return false;
    if (cell->writer != self && cell->write_time > known[cell->writer]) return false;
    if (!(cell->flags & COPIED) && cell->write_time > threads[cell->writer].fenced_time) {
      return false;
    }
  }
  return true;
}

// Item by item, as one warp.
static void check_operand_items(const char* piece, int item_bytes, const Thread& lane) {
  Thread* caller = current;
  current = &threads[lane.id];
  current->site = caller->site;
  for (uint32_t i = 0; i < OPERAND_BYTES; i += uint32_t(item_bytes)) {
    check_access(piece + i, item_bytes, Access::READ, nullptr);
    if (!last_write_is_in_async_proxy(piece + i)) {
      fail_with(evidence_here(piece + i),
                "wgmma reads what was written without fence.proxy.async");
    }
  }
  current = caller;
}

static void remember_operand(Cell* cell, uint32_t reader, uint32_t time) {
  for (uint32_t i = 0; i < OPERAND_BYTES / SHARED_CELL_BYTES; i++) {
    remember_read(cell[i], reader, time, 0);
  }
}

static bool is_launched_memory(const char* piece) {
  return piece + OPERAND_BYTES <= dynamic_memory.begin + launch->dynamic_bytes;
}

void check_operand(const char* piece, int item_bytes) {
  Cell* cell = &shared_cell(piece);
  if (!is_launched_memory(piece) || !operand_is_good(cell, known_to_all->time, FIRST_WARPGROUP)) {
    for (uint32_t warp = 0; warp < WARPGROUP / WARP; warp++) {
      check_operand_items(piece, item_bytes, reading_group[warp * WARP]);
    }
  }
  remember_operand(cell, FIRST_WARPGROUP + reading_group->id / WARPGROUP, group_read);
}

void check_operand_of_warp(const char* piece, int item_bytes, uint32_t warp) {
  Cell* cell = &shared_cell(piece);
  const Thread& lane = reading_group[warp * WARP];
  if (!is_launched_memory(piece) || !operand_is_good(cell, lane.knows->time, lane.id)) {
    check_operand_items(piece, item_bytes, lane);
  }
  remember_operand(cell, lane.id, lane.time);
}

}  // namespace emulator
