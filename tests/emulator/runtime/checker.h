// Shadow memory: which thread wrote and read each cell last, and whether that is ordered before now.
#pragma once
#include <algorithm>

#include "state.h"

namespace emulator {

enum class Access { READ, WRITE, ATOMIC, START_COPY, END_COPY };

// Fails if the current thread must not touch these bytes now; remembers that it did.
void check_access(const void* address, int bytes, Access access, const void* pc);
void check_global_read(const void* address, int bytes, const void* pc);
// No thread can have touched these bytes of shared memory since START_COPY.
void end_copy(const void* address, int bytes);
// Are reads of the array that holds this address always right?
bool is_constant(const void* address);

constexpr uint32_t OPERAND_BYTES = 16;  // that an operand of wgmma has in one piece
// Until the next call, operands are read at this moment, by a warpgroup.
void start_operand_reads(const Thread* warpgroup);
// 16 aligned bytes of shared memory, items of `item_bytes`, read by the first lane of each warp,
// or of one. They must have been written, in this order: by a copy, or before a proxy fence.
void check_operand(const char* piece, int item_bytes);
void check_operand_of_warp(const char* piece, int item_bytes, uint32_t warp);
// Is the last write of this shared address ordered before the current thread's next step?
bool last_write_is_visible(const void* shared_address);
// Was it made by an asynchronous copy, or fenced by the thread that made it?
bool last_write_is_in_async_proxy(const void* shared_address);

void map_shadow_memory();  // before the workers start
void unmap_shadow_memory();
void reset_shadow_of_cluster();

// ---- vector clocks, counted by reference: the threads that a barrier releases share one
VectorClock* new_clock();
VectorClock* new_empty_clock();
VectorClock* copy_clock(const VectorClock* clock);
void drop_clock(VectorClock* clock);
void set_clock(Thread& thread, VectorClock* clock);

inline void join_clock(VectorClock* into, const VectorClock* other) {
  for (uint32_t i = 0; i < cluster_threads; i++) {
    into->time[i] = std::max(into->time[i], other->time[i]);
  }
}
inline void join_thread(VectorClock* into, const Thread& thread) {
  into->time[thread.id] = std::max(into->time[thread.id], thread.time);
}

}  // namespace emulator
