// TMA: a box of a 2-D tensor into swizzled shared memory, zeros outside of the tensor.
#include "bulk_copies.h"

#include <cstring>

#include "checker.h"
#include "failures.h"
#include "scheduler.h"

namespace emulator {

struct TensorMap {  // laid out as tensor_maps.py packs it
  uint64_t magic, base;
  uint64_t columns, rows, row_bytes;
  uint32_t box_columns, box_rows, item_bytes;
  Swizzle swizzle;
  uint32_t box_bytes() const { return box_columns * box_rows * item_bytes; }
};
constexpr uint64_t TENSOR_MAP_MAGIC = 0x544d4150;

struct BulkCopy {
  char* shared;
  TensorMap map;  // by value: a kernel's parameter may lie on the issuing thread's stack
  int column, row;
  uint64_t* barrier;
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

template <class Visit>
static void for_each_item(const BulkCopy& copy, Visit visit) {
  const uint32_t row_bytes = copy.map.box_columns * copy.map.item_bytes;
  const auto start = uint64_t(copy.shared - shared_memory.begin);
  for (uint32_t row = 0; row < copy.map.box_rows; row++) {
    for (uint32_t column = 0; column < copy.map.box_columns; column++) {
      const uint64_t offset = start + uint64_t(row) * row_bytes + column * copy.map.item_bytes;
      visit(shared_memory.begin + swizzled(offset, copy.map.swizzle), row, column);
    }
  }
}

static void copy_item(const BulkCopy& copy, char* shared, uint32_t row, uint32_t column) {
  const TensorMap& map = copy.map;
  const long x = long(copy.column) + column, y = long(copy.row) + row;
  const bool inside = x >= 0 && y >= 0 && uint64_t(x) < map.columns && uint64_t(y) < map.rows;
  if (inside) {
    const auto* global = reinterpret_cast<const char*>(map.base) + uint64_t(y) * map.row_bytes +
                         uint64_t(x) * map.item_bytes;
    check_global_read(global, int(map.item_bytes), nullptr);
    memcpy(shared, global, map.item_bytes);
  } else {
    memset(shared, 0, map.item_bytes);
  }
  if (checking) check_access(shared, int(map.item_bytes), Access::END_COPY, nullptr);
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
  for_each_item(copy, [&](char* shared, uint32_t row, uint32_t column) {
    copy_item(copy, shared, row, column);
  });
  issuer.time = time_now;
  issuer.knows = knows_now;
  issuer.site = site_now;
  current = running;
  mbarrier_release(copy.barrier, copy.knows, copy.thread, copy.time);
  drop_clock(copy.knows);
  mbarrier_count_bytes(copy.barrier, copy.map.box_bytes());
}

void bulk_copy_2d(void* shared, const void* tensor_map, int column, int row, uint64_t* barrier,
                  Site site) {
  current->site = site;
  const auto* map = static_cast<const TensorMap*>(tensor_map);
  if (map->magic != TENSOR_MAP_MAGIC) fail("TMA: the argument is no tensor map,");
  BulkCopy copy{static_cast<char*>(shared), *map, column, row, barrier,
                current->id, current->time, current->knows, site};
  const uint32_t alignment = required_alignment(map->swizzle);
  if (!shared_memory.holds(address_of(shared)) ||
      uint64_t(copy.shared - shared_memory.begin) % alignment) {
    fail_with(evidence_here(shared), "TMA: the destination is not %u-byte aligned shared memory",
              alignment);
  }
  mbarrier_require_valid(barrier, "TMA");
  if (checking && !last_write_is_in_async_proxy(barrier)) {
    fail_with(evidence_here(barrier), "TMA on an mbarrier whose initialisation was not fenced");
  }
  if (checking) {
    copy.knows->references++;
    for_each_item(copy, [&](char* item, uint32_t, uint32_t) {
      check_access(item, int(map->item_bytes), Access::START_COPY, nullptr);
    });
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
