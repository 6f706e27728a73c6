// Shadow memory: who wrote and read each cell last, and whether that is ordered before now.
#pragma once
#include <algorithm>

#include "state.h"

namespace emulator {

enum class Access { READ, WRITE, ATOMIC, START_COPY, END_COPY };

// Fails if the current thread must not touch these bytes now; remembers that it did.
void check_access(const void* address, int bytes, Access access, const void* pc);
void check_global_read(const void* address, int bytes, const void* pc);
// Is the last write of this shared address ordered before the current thread's next step?
bool last_write_is_visible(const void* shared_address);
// Was it made by an asynchronous copy, or fenced by the thread that made it?
bool last_write_is_in_async_proxy(const void* shared_address);

void map_shadow_memory();  // before the workers start
void unmap_shadow_memory();
void reset_shadow_of_block();

// ---- vector clocks, counted by reference: the threads that a barrier releases share one
VectorClock* new_clock();
VectorClock* new_empty_clock();
VectorClock* copy_clock(const VectorClock* clock);
void drop_clock(VectorClock* clock);
void set_clock(Thread& thread, VectorClock* clock);

inline void join_clock(VectorClock* into, const VectorClock* other) {
  for (uint32_t i = 0; i < thread_count; i++) {
    into->time[i] = std::max(into->time[i], other->time[i]);
  }
}
inline void join_thread(VectorClock* into, const Thread& thread) {
  into->time[thread.id] = std::max(into->time[thread.id], thread.time);
}

}  // namespace emulator
