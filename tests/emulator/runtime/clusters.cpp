// Where the blocks of a cluster lie, their barrier, and what they may do to each other.
#include "clusters.h"

#include <cstring>
#include <map>

#include "cells.h"
#include "checker.h"
#include "failures.h"
#include "mbarriers.h"
#include "scheduler.h"

namespace emulator {

// ---- layout

Dim3 block_index(uint32_t cluster, uint32_t rank) {
  const uint32_t* extents = launch->cluster;
  const uint32_t across = gridDim.x / extents[0], down = gridDim.y / extents[1];
  return Dim3{cluster % across * extents[0] + rank % extents[0],
              cluster / across % down * extents[1] + rank / extents[0] % extents[1],
              cluster / across / down * extents[2] + rank / extents[0] / extents[1]};
}

void lay_out_clusters() {
  cluster_size = launch->cluster[0] * launch->cluster[1] * launch->cluster[2];
  const uint32_t step = (thread_count + WARPGROUP - 1) / WARPGROUP * WARPGROUP;
  cluster_threads = (cluster_size - 1) * step + thread_count;
  for (uint32_t i = 0; i < cluster_size; i++) {
    blocks[i].rank = i;
    blocks[i].first_thread = i * step;
  }
}

void enter_block(Block& block) {
  current_block = &block;
  blockIdx = block.index;
  shared_memory = block.shared_memory;
  dynamic_memory = block.dynamic_memory;
  shared_cells = block.cells;
  use_thread_local_block(block.shared_memory);
}

// ---- the barrier of all threads that have not exited

static std::vector<uint32_t> waiting;
static bool released;  // by all arrivals: what their threads have done before is ordered

static void order_all() {
  VectorClock* clock = new_empty_clock();
  const VectorClock* joined = nullptr;
  for (uint32_t id : waiting) {
    if (threads[id].knows != joined) join_clock(clock, threads[id].knows);
    joined = threads[id].knows;
    join_thread(clock, threads[id]);
  }
  for (uint32_t id : waiting) {
    threads[id].time++;
    set_clock(threads[id], clock);
  }
  drop_clock(clock);
}

static void release_if_complete() {
  uint32_t live_threads = 0;
  for (uint32_t i = 0; i < cluster_size; i++) live_threads += blocks[i].live_threads;
  if (waiting.size() < live_threads) return;
  if (checking && released) order_all();
  if (checking) publish_fenced_mbarriers();
  for (uint32_t id : waiting) make_ready(id);
  waiting.clear();
}

// barrier.cluster.arrive.aligned and .wait.aligned are one instruction for all lanes of a warp.
static void require_same_place_in_warp(Site site) {
  const uint32_t first = current->id / WARP * WARP;
  const uint32_t end = current->block->first_thread + thread_count;
  for (uint32_t i = first; i < std::min(first + WARP, end); i++) {
    const Thread& lane = threads[i];
    if (lane.state != State::AT_CLUSTER_BARRIER) continue;
    if (lane.site.line == site.line && !strcmp(lane.site.file, site.file)) continue;
    fail("divergent cluster barrier: lane %u of the warp waits in the one at %s:%d, this one",
         i - first, file_name(lane.site.file), lane.site.line);
  }
}

void cluster_sync(bool release, Site site) {
  current->site = site;
  require_same_place_in_warp(site);
  released = release && (released || waiting.empty());
  current->state = State::AT_CLUSTER_BARRIER;
  waiting.push_back(current->id);
  release_if_complete();
  wait_for_turn();
}

void release_cluster_barrier_of_survivors() {
  if (!waiting.empty()) release_if_complete();
}

// ---- visits: what a thread does to the shared memory of another block, which must still run then

struct Visit {
  uint32_t time;
  Site site;
  const char* what;
};

static std::map<uint32_t, Visit> visits[MAX_CLUSTER];  // to each block: the last of each thread

Block& block_to_visit(uint32_t rank, const char* what) {
  if (rank >= cluster_size) {
    fail("%s, but block %u is outside the cluster of %u blocks,", what, rank, cluster_size);
  }
  Block& block = blocks[rank];
  if (&block == current->block) return block;
  if (!block.live_threads) fail("%s, but block %u of the cluster has exited,", what, rank);
  if (checking) visits[rank][current->id] = Visit{current->time, current->site, what};
  return block;
}

// Otherwise another schedule would have let the block exit before.
void require_visits_seen() {
  const Block& block = *current_block;
  auto& all = visits[block.rank];
  if (all.empty()) return;
  VectorClock* known = new_empty_clock();
  for (uint32_t i = 0; i < thread_count; i++) {
    join_clock(known, threads[block.first_thread + i].knows);
  }
  for (const auto& [thread, visit] : all) {
    if (visit.time <= known->time[thread]) continue;
    current = &threads[thread];
    threadIdx = current->index;
    current->site = visit.site;
    fail("%s, but block %u of the cluster may have exited: it does not wait for this,", visit.what,
         block.rank);
  }
  drop_clock(known);
  all.clear();
}

void place_cluster(uint32_t number) {
  cluster_number = number;
  for (uint32_t i = 0; i < cluster_size; i++) {
    blocks[i].index = block_index(number, i);
    visits[i].clear();
  }
  waiting.clear();
}

uint32_t cluster_rank() { return current_block->rank; }

}  // namespace emulator
