// Shadow cells: what the checker remembers of two bytes of shared memory, or of one element.
#pragma once
#include "state.h"

namespace emulator {

enum CellFlag : uint8_t {
  INITIALISED = 1,
  COPY_PENDING = 2,  // an asynchronous copy into it has not been waited for
  ATOMIC_WRITE = 4,  // the last write was atomic
  UNCHECKED = 8,     // a variable that the compiler made
  FOREIGN = 16,      // belongs to no variable and no array
  MIXED_CLUSTERS = 32,  // atomics of several clusters wrote it: nothing orders a plain access
  COPIED = 64,        // the last write was an asynchronous copy
};

struct Cell {
  uint32_t write_time, write_cluster, write_pc;
  uint32_t read_time, read_cluster, read_pc;
  uint32_t older_read_time, older_read_cluster;  // of another thread than the latest reader
  uint16_t writer;
  uint16_t reader, older_reader;  // threads, or FIRST_WARPGROUP and so on
  uint8_t flags;
};

// A read by all warps of a warpgroup: its time numbers an entry in warpgroup_reads.
constexpr uint32_t FIRST_WARPGROUP = MAX_CLUSTER_THREADS;
struct WarpgroupRead {
  uint32_t time[WARPGROUP / WARP];  // of the first lane of each warp
};
inline std::vector<WarpgroupRead> warpgroup_reads;

constexpr uint64_t SHARED_CELL_BYTES = 2;

inline Cell* shared_cells;

inline Cell& shared_cell(const void* address) {
  const uint64_t offset = address_of(address) - address_of(shared_memory.begin);
  return shared_cells[offset / SHARED_CELL_BYTES];
}

inline bool ordered_before_now(uint32_t thread, uint32_t time, uint32_t cluster) {
  return cluster == cluster_number &&
         (thread == current->id || time <= current->knows->time[thread]);
}

inline void remember_read(Cell& cell, uint32_t me, uint32_t time, uint32_t pc) {
  const bool another = cell.read_time && (cell.reader != me || cell.read_cluster != cluster_number);
  if (another && !(cell.older_read_time && cell.older_reader == cell.reader &&
                   cell.older_read_cluster == cell.read_cluster)) {
    cell.older_read_time = cell.read_time;
    cell.older_reader = cell.reader;
    cell.older_read_cluster = cell.read_cluster;
  }
  cell.read_time = time;
  cell.reader = uint16_t(me);
  cell.read_cluster = cluster_number;
  cell.read_pc = pc;
}

}  // namespace emulator
