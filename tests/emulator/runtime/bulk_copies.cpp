// TMA: a box of a tensor into swizzled shared memory, zeros outside of the tensor.
#include "bulk_copies.h"

#include <cstring>

#include "checker.h"
#include "clusters.h"
#include "failures.h"
#include "mbarriers.h"
#include "scheduler.h"
#include "tensor_maps.h"

namespace emulator {

constexpr uint64_t TENSOR_MAP_MAGIC = 0x544d4150;
constexpr int MAX_BOX_ROW_BYTES = 256 * 8;

struct BulkCopy {
  Block* block;  // whose shared memory it writes, and whose mbarrier counts it
  char* shared;
  TensorMap map;  // by value: a kernel's parameter may lie on the issuing thread's stack
  TensorCoordinates corner;
  uint64_t* barrier;
  uint32_t phase;         // of the mbarrier
  uint32_t thread, time;  // the issuer, and what it knew
  VectorClock* knows;
  Site site;
};

static std::vector<BulkCopy> outstanding;

static uint32_t required_alignment(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::BYTES_128:
      return 1024;
    case Swizzle::BYTES_64:
      return 512;
    case Swizzle::BYTES_32:
      return 256;
    default:
      return 128;
  }
}

static void check_source(const char* global, uint32_t bytes, uint32_t item_bytes) {
  check_global_read(global, int(bytes), nullptr);
  if (!checking || is_constant(global)) return;
  const char* end = global + bytes;
  while (global < end) {
    const bool whole = address_of(global) % PIECE_BYTES == 0 && end - global >= long(PIECE_BYTES);
    const uint32_t step = whole ? PIECE_BYTES : item_bytes;
    check_access(global, int(step), Access::READ, nullptr);
    global += step;
  }
}

// One row of the box, from global memory and zeros.
static void read_row(const BulkCopy& copy, uint32_t row, char* out) {
  const RowInside inside = row_inside(copy.map, copy.corner, row);
  memset(out, 0, copy.map.row_bytes());
  if (!inside.bytes) return;
  check_source(inside.global, inside.bytes, copy.map.item_bytes);
  memcpy(out + inside.first, inside.global, inside.bytes);
}

static void write_box(const BulkCopy& copy) {
  char content[MAX_BOX_ROW_BYTES];
  for_each_piece(copy.map, copy.shared, [&](char* piece, uint32_t row, uint32_t byte) {
    if (byte == 0) read_row(copy, row, content);
    memcpy(piece, content + byte, PIECE_BYTES);
    if (checking) end_copy(piece, PIECE_BYTES);
  });
}

static void land(const BulkCopy& copy) {
  Thread* running = current;
  Thread& issuer = threads[copy.thread];
  const uint32_t time_now = issuer.time;
  VectorClock* knows_now = issuer.knows;
  const Site site_now = issuer.site;
  const Inside inside(*copy.block);
  current = &issuer;
  issuer.time = copy.time;
  issuer.knows = copy.knows;
  issuer.site = copy.site;
  write_box(copy);
  mbarrier_count_bytes(copy.barrier, LandedCopy{copy.map.box_bytes(), copy.phase, copy.thread,
                                                copy.time, copy.knows});
  issuer.time = time_now;
  issuer.knows = knows_now;
  issuer.site = site_now;
  current = running;
  if (checking) drop_clock(copy.knows);
}

static const TensorMap& checked_map(const void* tensor_map) {
  const auto* map = static_cast<const TensorMap*>(tensor_map);
  if (address_of(map) % TENSOR_MAP_ALIGNMENT) {
    fail("TMA: the tensor map is not %d-byte aligned,", int(TENSOR_MAP_ALIGNMENT));
  }
  if (map->magic != TENSOR_MAP_MAGIC) fail("TMA: the argument is no tensor map,");
  return *map;
}

void prefetch_tensor_map(const void* tensor_map, Site site) {
  current->site = site;
  checked_map(tensor_map);
}

static void require_valid_destination(const BulkCopy& copy) {
  const uint32_t alignment = required_alignment(copy.map.swizzle);
  if (!shared_memory.holds(address_of(copy.shared)) ||
      uint64_t(copy.shared - shared_memory.begin) % alignment) {
    fail_with(evidence_here(copy.shared),
              "TMA: the destination is not %u-byte aligned shared memory", alignment);
  }
  if (copy.map.box_bytes() > uint64_t(shared_memory.end - copy.shared)) {
    fail_with(evidence_here(copy.shared), "TMA: the box, %u bytes, ends outside shared memory",
              copy.map.box_bytes());
  }
}

static void check_destination(const BulkCopy& copy) {
  for_each_piece(copy.map, copy.shared, [](char* piece, uint32_t, uint32_t) {
    const bool fenced = last_write_is_in_async_proxy(piece);
    check_access(piece, PIECE_BYTES, Access::START_COPY, nullptr);
    if (fenced) return;
    fail_with(evidence_here(piece), "TMA overwrites what was written without fence.proxy.async");
  });
}

static const TensorMap& map_for_box(const void* tensor_map, const TensorCoordinates& corner) {
  const TensorMap& map = checked_map(tensor_map);
  if (map.rank != corner.rank) {
    fail("TMA: %u coordinates for a tensor of %u dimensions,", corner.rank, map.rank);
  }
  return map;
}

// Into the block whose shared memory is in place.
static BulkCopy start(char* shared, const TensorMap& map, const TensorCoordinates& corner,
                      uint64_t* barrier) {
  const uint32_t phase = mbarrier_phase_for_copy(barrier);
  const BulkCopy copy{current_block, shared,      map,           corner,         barrier,
                      phase,         current->id, current->time, current->knows, current->site};
  require_valid_destination(copy);
  if (checking) {
    copy.knows->references++;
    check_destination(copy);
  }
  return copy;
}

static void land_in_time(const BulkCopy& copy) {
  if (launch->eager_copies) {
    land(copy);
  } else {
    outstanding.push_back(copy);
  }
}

void bulk_copy(void* shared, const void* tensor_map, TensorCoordinates corner, uint64_t* barrier,
               Site site) {
  current->site = site;
  const TensorMap& map = map_for_box(tensor_map, corner);
  const BulkCopy copy = start(static_cast<char*>(shared), map, corner, barrier);
  current->time++;
  land_in_time(copy);
}

// A copy for each block: they land at different times.
void multicast_copy(void* shared, const void* tensor_map, TensorCoordinates corner,
                    uint64_t* barrier, uint32_t mask, Site site) {
  current->site = site;
  const TensorMap& map = map_for_box(tensor_map, corner);
  if (!mask) fail("TMA: the multicast goes to no block,");
  std::vector<BulkCopy> copies;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    Block& block = block_to_visit(uint32_t(__builtin_ctz(rest)), "TMA: multicast");
    char* there = counterpart(shared, block);
    auto* barrier_there = reinterpret_cast<uint64_t*>(counterpart(barrier, block));
    const Inside inside(block);
    copies.push_back(start(there, map, corner, barrier_there));
  }
  current->time++;
  for (const BulkCopy& copy : copies) land_in_time(copy);
}

void require_no_bulk_copies() {
  for (const BulkCopy& copy : outstanding) {
    if (copy.block != current_block) continue;
    current->site = copy.site;
    fail("TMA: the block ends before the copy has landed,");
  }
}

void forget_bulk_copies() {
  if (checking) {
    for (const BulkCopy& copy : outstanding) drop_clock(copy.knows);
  }
  outstanding.clear();
}

bool complete_one_bulk_copy() {
  if (outstanding.empty()) return false;
  size_t index = 0;
  if (launch->schedule == Schedule::DESCENDING) index = outstanding.size() - 1;
  if (launch->schedule == Schedule::RANDOM) index = random_number() % outstanding.size();
  const BulkCopy copy = outstanding[index];
  outstanding.erase(outstanding.begin() + long(index));
  land(copy);
  return true;
}

}  // namespace emulator
