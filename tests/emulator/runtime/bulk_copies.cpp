// TMA: a box of a tensor into swizzled shared memory, zeros outside of the tensor.
#include "bulk_copies.h"

#include <cstring>

#include "checker.h"
#include "failures.h"
#include "mbarriers.h"
#include "scheduler.h"
#include "tensor_maps.h"

namespace emulator {

constexpr uint64_t TENSOR_MAP_MAGIC = 0x544d4150;
constexpr int MAX_BOX_ROW_BYTES = 256 * 8;

struct BulkCopy {
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

void bulk_copy(void* shared, const void* tensor_map, TensorCoordinates corner, uint64_t* barrier,
               Site site) {
  current->site = site;
  const TensorMap& map = checked_map(tensor_map);
  if (map.rank != corner.rank) {
    fail("TMA: %u coordinates for a tensor of %u dimensions,", corner.rank, map.rank);
  }
  const uint32_t phase = mbarrier_phase_for_copy(barrier);
  const BulkCopy copy{static_cast<char*>(shared), map, corner, barrier, phase,
                      current->id, current->time, current->knows, site};
  require_valid_destination(copy);
  if (checking) {
    copy.knows->references++;
    check_destination(copy);
  }
  current->time++;
  if (launch->eager_copies) {
    land(copy);
  } else {
    outstanding.push_back(copy);
  }
}

void require_no_bulk_copies() {
  if (outstanding.empty()) return;
  current->site = outstanding[0].site;
  fail("TMA: the block ends before the copy has landed,");
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
