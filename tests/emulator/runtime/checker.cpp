// Happens-before races, uninitialised reads, bounds and alignment of every instrumented access.
#include "checker.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "cells.h"
#include "clusters.h"
#include "failures.h"
#include "watchdog.h"

namespace emulator {

static Cell* fresh_cells;  // what those of shared memory start every block as
static std::vector<Cell*> buffer_cells;
static std::vector<std::pair<void*, size_t>> mappings;
static uint64_t last_buffer;

// ---- vector clocks

static VectorClock* base_clock;
static std::vector<VectorClock*> free_clocks;

VectorClock* new_clock() {
  VectorClock* clock = nullptr;
  while (!clock && !free_clocks.empty()) {
    clock = free_clocks.back();
    free_clocks.pop_back();
    if (clock->capacity >= cluster_threads) continue;
    free(clock);
    clock = nullptr;
  }
  if (!clock) {
    const uint32_t capacity = std::max(MAX_THREADS, cluster_threads);
    const size_t bytes = offsetof(VectorClock, time) + sizeof(uint32_t) * capacity;
    clock = static_cast<VectorClock*>(malloc(bytes));
    clock->capacity = capacity;
  }
  clock->references = 1;
  return clock;
}

VectorClock* new_empty_clock() {
  VectorClock* clock = new_clock();
  memset(clock->time, 0, sizeof(uint32_t) * cluster_threads);
  return clock;
}

VectorClock* copy_clock(const VectorClock* other) {
  VectorClock* clock = new_clock();
  memcpy(clock->time, other->time, sizeof(uint32_t) * cluster_threads);
  return clock;
}

void drop_clock(VectorClock* clock) {
  if (clock && !--clock->references) free_clocks.push_back(clock);
}

void set_clock(Thread& thread, VectorClock* clock) {
  clock->references++;
  drop_clock(thread.knows);
  thread.knows = clock;
}

// Every module has a runtime of its own: what one keeps, hundreds keep.
static void free_all_clocks() {
  for (uint32_t i = 0; i < cluster_threads; i++) drop_clock(threads[i].knows);
  for (VectorClock* clock : free_clocks) free(clock);
  free_clocks.clear();
}

// ---- cells

// An access without a pc is part of a runtime call.
static Evidence evidence_of(const void* pc, uint64_t address, uint64_t other_pc = 0) {
  return Evidence{pc, other_pc, reinterpret_cast<void*>(address), current->site};
}

[[noreturn]] static void fail_race(const char* what, const char* earlier, uint64_t address,
                                   uint32_t thread, uint32_t cluster, uint32_t other_pc,
                                   const void* pc) {
  const Dim3 index = threads[thread].index;
  const uint32_t rank = threads[thread].block->rank;
  const Evidence evidence = evidence_of(pc, address, other_pc);
  if (cluster == cluster_number && rank == current->block->rank) {
    fail_with(evidence, "race: %s is not ordered after the %s by thread (%u,%u,%u)", what, earlier,
              index.x, index.y, index.z);
  }
  const Dim3 block = block_index(cluster, rank);
  fail_with(evidence,
            "race: %s is not ordered after the %s by thread (%u,%u,%u) of block (%u,%u,%u)", what,
            earlier, index.x, index.y, index.z, block.x, block.y, block.z);
}

static const char* name_of(Access access) {
  switch (access) {
    case Access::READ:
      return "read";
    case Access::ATOMIC:
      return "atomic";
    case Access::START_COPY:
    case Access::END_COPY:
      return "asynchronous write";
    default:
      return "write";
  }
}

// Returns true where nothing else is to be checked.
static bool check_flags(const Cell& cell, uint64_t address, Access access, const void* pc) {
  Evidence evidence = evidence_of(pc, address);
  if (cell.flags & UNCHECKED) return true;
  if (cell.flags & FOREIGN) {
    fail_with(evidence, "out-of-bounds %s of bytes that belong to no array", name_of(access));
  }
  if ((cell.flags & COPY_PENDING) && access != Access::END_COPY) {
    evidence.other_pc = cell.write_pc;
    fail_with(evidence, "%s of memory whose asynchronous copy has not been waited for",
              name_of(access));
  }
  return false;
}

// Finds the thread whose read is not ordered before now; false if there is none.
static inline bool unordered_reader(uint32_t reader, uint32_t time, uint32_t cluster,
                                    uint32_t& found) {
  found = reader;
  if (reader < FIRST_WARPGROUP) return !ordered_before_now(reader, time, cluster);
  found = (reader - FIRST_WARPGROUP) * WARPGROUP;
  if (cluster != cluster_number) return true;
  for (uint32_t one : warpgroup_reads[time].time) {
    if (!ordered_before_now(found, one, cluster)) return true;
    found += WARP;
  }
  return false;
}

static void check_order(const Cell& cell, uint64_t address, Access access, const void* pc) {
  const bool both_atomic = access == Access::ATOMIC && (cell.flags & ATOMIC_WRITE);
  if (cell.write_time && !both_atomic &&
      ((cell.flags & MIXED_CLUSTERS) ||
       !ordered_before_now(cell.writer, cell.write_time, cell.write_cluster))) {
    fail_race(name_of(access), "write", address, cell.writer, cell.write_cluster, cell.write_pc,
              pc);
  }
  if (access == Access::READ) return;
  uint32_t reader;
  if (cell.read_time && unordered_reader(cell.reader, cell.read_time, cell.read_cluster, reader)) {
    fail_race(name_of(access), "read", address, reader, cell.read_cluster, cell.read_pc, pc);
  }
  if (cell.older_read_time && unordered_reader(cell.older_reader, cell.older_read_time,
                                               cell.older_read_cluster, reader)) {
    fail_race(name_of(access), "read", address, reader, cell.older_read_cluster, 0, pc);
  }
}

static uint8_t flags_of_write(const Cell& before, Access access) {
  if (access == Access::START_COPY) return INITIALISED | COPIED | COPY_PENDING;
  if (access == Access::END_COPY) return INITIALISED | COPIED;
  if (access != Access::ATOMIC) return INITIALISED;
  const bool again = before.write_time && (before.flags & ATOMIC_WRITE);
  const bool mixed =
      again && (before.write_cluster != cluster_number || before.flags & MIXED_CLUSTERS);
  return uint8_t(INITIALISED | ATOMIC_WRITE | (mixed ? MIXED_CLUSTERS : 0));
}

static inline void remember_write(Cell& cell, Access access, uint32_t pc) {
  cell.flags = flags_of_write(cell, access);
  cell.write_time = current->time;
  cell.writer = uint16_t(current->id);
  cell.write_cluster = cluster_number;
  cell.write_pc = pc;
  cell.read_time = cell.older_read_time = 0;
}

static void check_cells(Cell* cell, uint64_t count, uint64_t address, uint64_t cell_bytes,
                        Access access, const void* pc, bool initialised) {
  const auto short_pc = pc ? uint32_t(address_of(pc) - address_of(module_image.begin)) : 0;
  for (uint64_t i = 0; i < count; i++, cell++, address += cell_bytes) {
    if ((cell->flags & (UNCHECKED | FOREIGN | COPY_PENDING)) &&
        check_flags(*cell, address, access, pc)) {
      return;
    }
    check_order(*cell, address, access, pc);
    const bool reads = access == Access::READ || access == Access::ATOMIC;
    if (reads && !initialised && !(cell->flags & INITIALISED)) {
      fail_with(evidence_of(pc, address), "%s of uninitialised memory",
                name_of(access));
    }
    if (access == Access::READ) {
      remember_read(*cell, current->id, current->time, short_pc);
    } else {
      remember_write(*cell, access, short_pc);
    }
  }
}

// ---- one access

static void check_shared(uint64_t address, int bytes, Access access, const void* pc) {
  Evidence evidence = evidence_of(pc, address);
  if (dynamic_memory.holds(address) &&
      address + bytes > address_of(dynamic_memory.begin) + launch->dynamic_bytes) {
    fail_with(evidence, "out-of-bounds %s of %d bytes, the launch gave %u bytes", name_of(access),
              bytes, launch->dynamic_bytes);
  }
  if (address & (bytes - 1)) {
    fail_with(evidence, "misaligned %s of %d bytes", name_of(access), bytes);
  }
  const uint64_t first = (address - address_of(shared_memory.begin)) / SHARED_CELL_BYTES;
  const uint64_t count = (bytes + SHARED_CELL_BYTES - 1) / SHARED_CELL_BYTES;
  check_cells(shared_cells + first, count, address & ~(SHARED_CELL_BYTES - 1), SHARED_CELL_BYTES,
              access, pc, false);
}

static bool is_constant(const Buffer& buffer) {
  return buffer.read_only && !buffer.uninitialised;
}

static void check_buffer(uint64_t index, uint64_t address, int bytes, Access access,
                         const void* pc) {
  const Buffer& buffer = launch->buffers[index];
  Evidence evidence = evidence_of(pc, address);
  if (access != Access::READ && buffer.read_only) {
    fail_with(evidence, "%s of %d bytes to an argument that is const", name_of(access), bytes);
  }
  if (address & (bytes - 1)) {
    fail_with(evidence, "misaligned %s of %d bytes", name_of(access), bytes);
  }
  if (access == Access::READ && is_constant(buffer) && !buffer.members) return;
  const uint64_t item = buffer.item_bytes, offset = address - buffer.base;
  const uint64_t first = offset / item, last = (offset + bytes - 1) / item;
  check_cells(buffer_cells[index] + first, last - first + 1, buffer.base + first * item, item,
              access, pc, !buffer.uninitialised);
}

static bool in_another_stack(uint64_t address) {
  for (uint32_t i = 0; i < cluster_threads; i++) {
    const char* stack = threads[i].stack;
    if (stack && address - address_of(stack) < launch->stack_bytes) return true;
  }
  return false;
}

static inline void check_one(uint64_t address, int bytes, Access access, const void* pc) {
  check_deadline();
  shared_state->accesses++;
  if (shared_memory.holds(address)) return check_shared(address, bytes, access, pc);
  if (address - address_of(current->stack) < launch->stack_bytes) return;
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    uint64_t index = last_buffer + i;
    if (index >= launch->buffer_count) index -= launch->buffer_count;
    const Buffer& buffer = launch->buffers[index];
    const uint64_t offset = address - buffer.base;
    if (offset >= buffer.bytes) continue;
    last_buffer = index;
    if (offset + bytes > buffer.bytes) break;
    return check_buffer(index, address, bytes, access, pc);
  }
  if (module_image.holds(address)) return;  // constants
  if (in_another_stack(address)) {
    fail_with({pc}, "%s of another thread's local memory", name_of(access));
  }
  fail_with(evidence_of(pc, address), "out-of-bounds %s of %d bytes", name_of(access), bytes);
}

void check_access(const void* address, int bytes, Access access, const void* pc) {
  check_one(address_of(address), bytes, access, pc);
}

void check_global_read(const void* pointer, int bytes, const void* pc) {
  const uint64_t address = address_of(pointer);
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    const uint64_t offset = address - launch->buffers[i].base;
    if (offset < launch->buffers[i].bytes && offset + bytes <= launch->buffers[i].bytes) return;
  }
  fail_with(evidence_of(pc, address), "out-of-bounds read of %d bytes by an asynchronous copy",
            bytes);
}

bool is_constant(const void* pointer) {
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    const Buffer& buffer = launch->buffers[i];
    if (address_of(pointer) - buffer.base < buffer.bytes) return is_constant(buffer);
  }
  return false;
}

void end_copy(const void* address, int bytes) {
  Cell* cell = &shared_cell(address);
  for (uint64_t i = 0; i < uint64_t(bytes) / SHARED_CELL_BYTES; i++) {
    cell[i].flags = uint8_t(cell[i].flags & ~COPY_PENDING);
  }
}

bool last_write_is_in_async_proxy(const void* shared_address) {
  const Cell& cell = shared_cell(shared_address);
  return !cell.write_time || (cell.flags & COPIED) ||
         cell.write_time <= threads[cell.writer].fenced_time;
}

void fence_async_proxy() {
  current->fenced_time = current->time;
  current->time++;
}

bool last_write_is_visible(const void* shared_address) {
  const Cell& cell = shared_cell(shared_address);
  return !cell.write_time || ordered_before_now(cell.writer, cell.write_time, cell.write_cluster);
}

// ---- shadow memory

static Cell* map_cells(size_t count, int sharing) {
  const size_t bytes = sizeof(Cell) * count;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  mappings.push_back({memory, bytes});
  return static_cast<Cell*>(memory);
}

static bool is_poison(const Buffer& buffer, uint64_t item) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(buffer.base + item * buffer.item_bytes);
  return std::all_of(bytes, bytes + buffer.item_bytes,
                     [&](uint8_t byte) { return byte == buffer.poison; });
}

static void map_buffer(const Buffer& buffer) {
  const uint64_t items = buffer.bytes / buffer.item_bytes;
  Cell* cells = map_cells(items + 2, launch->workers > 1 ? MAP_SHARED : MAP_PRIVATE);
  buffer_cells.push_back(cells);
  for (uint64_t i = 0; buffer.members && i < items; i++) {
    if (!buffer.members[i]) cells[i].flags = FOREIGN;
  }
  for (uint64_t i = 0; buffer.uninitialised && i < items; i++) {
    if (!is_poison(buffer, i)) cells[i].flags |= INITIALISED;
  }
}

static uint64_t static_cell_count() {
  return uint64_t(dynamic_memory.begin - shared_memory.begin) / SHARED_CELL_BYTES;
}

static void map_shared() {
  const uint64_t count = uint64_t(shared_memory.end - shared_memory.begin) / SHARED_CELL_BYTES + 64;
  for (uint32_t i = 0; i < cluster_size; i++) blocks[i].cells = map_cells(count, MAP_PRIVATE);
  fresh_cells = map_cells(count, MAP_PRIVATE);
  for (uint64_t i = 0; i < static_cell_count(); i++) fresh_cells[i].flags = FOREIGN;
  for (uint64_t v = 0; v < launch->shared_variable_count; v++) {
    const SharedVariable& variable = launch->shared_variables[v];
    const uint64_t end = (variable.offset + variable.bytes - 1) / SHARED_CELL_BYTES;
    for (uint64_t i = variable.offset / SHARED_CELL_BYTES; i <= end; i++) {
      fresh_cells[i].flags = variable.is_guard ? UNCHECKED : 0;
    }
  }
}

void map_shadow_memory() {
  buffer_cells.clear();
  last_buffer = 0;
  map_shared();
  for (uint64_t i = 0; i < launch->buffer_count; i++) map_buffer(launch->buffers[i]);
}

void unmap_shadow_memory() {
  for (const auto& [memory, bytes] : mappings) munmap(memory, bytes);
  mappings.clear();
  free_all_clocks();
}

void reset_shadow_of_cluster() {
  const uint64_t cells = static_cell_count() + launch->dynamic_bytes / SHARED_CELL_BYTES + 1;
  for (uint32_t i = 0; i < cluster_size; i++) {
    memcpy(blocks[i].cells, fresh_cells, sizeof(Cell) * cells);
  }
  drop_clock(base_clock);
  base_clock = new_empty_clock();
  warpgroup_reads.assign(1, WarpgroupRead{});  // no read has the time 0
  for (uint32_t i = 0; i < cluster_threads; i++) {
    threads[i].time = 1;
    threads[i].fenced_time = threads[i].init_fenced_time = 0;
    set_clock(threads[i], base_clock);
  }
}

}  // namespace emulator
