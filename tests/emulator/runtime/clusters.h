// Thread block clusters: blocks that run together and reach each other's shared memory.
#pragma once
#include "state.h"

namespace emulator {

Dim3 block_index(uint32_t cluster, uint32_t rank);
// Numbers the blocks of every cluster and their threads, by the launch's configuration.
void lay_out_clusters();
void place_cluster(uint32_t number);
void enter_block(Block& block);

// While it lives, shared memory is that of another block.
class Inside {
 public:
  explicit Inside(Block& block) : outer(current_block) { enter_block(block); }
  ~Inside() { enter_block(*outer); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Block* outer;
};

// The same place in the shared memory of another block.
inline char* counterpart(const void* address, const Block& block) {
  const uint64_t offset = address_of(address) - address_of(current_block->shared_memory.begin);
  return block.shared_memory.begin + offset;
}

// The block of that rank, if the current thread can do something there now: it remembers that.
Block& block_to_visit(uint32_t rank, const char* what);
// The current thread has exited, or all threads of its block: the others may have waited for that.
void release_cluster_barrier_of_survivors();
void require_visits_seen();

// ---- copies of the module's thread-local block, one for each block of a cluster

bool map_thread_local_blocks(uint64_t module_number);
void unmap_thread_local_blocks();
void use_thread_local_block(const Range& memory);

}  // namespace emulator
