// wgmma: products of a warpgroup, computed when all four warps wait for them.
#include <deque>

#include "checker.h"
#include "failures.h"
#include "fragments.h"
#include "scheduler.h"
#include "wgmma_operands.h"

namespace emulator {

// What a thread's accumulators hold while a product is in flight: a NaN that nothing else makes.
constexpr uint32_t IN_FLIGHT = 0x7fc1f117;

static void require_untouched(const Accumulator& accumulator, Site site) {
  for (int i = 0; i < accumulator.columns / 2; i++) {
    uint32_t bits;
    memcpy(&bits, &accumulator.registers[i], sizeof bits);
    if (bits == IN_FLIGHT) continue;
    current->site = site;
    fail("wgmma: register %d of the accumulator was written while the product is in flight,", i);
  }
}

// The values move to the runtime's memory: whoever reads the registers too early gets NaNs.
static void hold_accumulator(const WgmmaOperands& product, Site site) {
  const int bytes = item_bytes(product.type), count = product.columns / 2;
  for (Accumulator& held : current->accumulators) {
    if (product.d + count <= held.registers || held.registers + held.columns / 2 <= product.d) {
      continue;
    }
    if (held.registers != product.d || held.columns != product.columns ||
        held.item_bytes != bytes) {
      fail("wgmma: the accumulator is in use by a product in flight of another shape,");
    }
    if (checking) require_untouched(held, site);
    held.products++;
    return;
  }
  current->accumulators.push_back(Accumulator{product.d, product.columns, bytes, 1, {}});
  Accumulator& held = current->accumulators.back();
  for (int i = 0; i < count; i++) {
    held.values[i] = product.d[i];
    memcpy(&product.d[i], &IN_FLIGHT, sizeof IN_FLIGHT);
  }
}

static Accumulator& accumulator_of(Thread& thread, const float* registers) {
  for (Accumulator& held : thread.accumulators) {
    if (held.registers == registers) return held;
  }
  __builtin_unreachable();  // every product in flight has one
}

static void release_accumulator(Thread& thread, const WgmmaProduct& product) {
  Accumulator& held = accumulator_of(thread, product.operands.d);
  if (checking) require_untouched(held, product.site);
  if (--held.products) return;
  memcpy(held.registers, held.values, sizeof(float) * size_t(held.columns / 2));
  thread.accumulators.erase(thread.accumulators.begin() + (&held - &thread.accumulators[0]));
}

void wgmma_fence() { current->products_fenced = true; }

static Operand operand_a(const WgmmaOperands& product) {
  return Operand{product.a, product.a_transposed, WGMMA_ROWS, product.type};
}
static Operand operand_b(const WgmmaOperands& product) {
  return Operand{product.b, product.b_transposed, product.columns, product.type};
}

void wgmma(const WgmmaOperands& operands, Site site) {
  current->site = site;
  if (checking && !current->products_fenced) {
    fail("wgmma without wgmma.fence since the last wait,");
  }
  require_whole_warpgroup("wgmma");
  if (!operands.a_registers) require_valid_descriptor(operand_a(operands), "a");
  require_valid_descriptor(operand_b(operands), "b");
  WgmmaProduct product{operands, {}, site};
  if (operands.a_registers) {
    memcpy(product.a_values, operands.a_registers, sizeof product.a_values);
  }
  hold_accumulator(operands, site);
  current->products.push_back(product);
}

void wgmma_commit() {
  auto& groups = current->product_groups;
  groups.push_back(int(current->products.size()) - in_groups(groups, groups.size()));
}

// ---- products, computed for the whole warpgroup

static bool same_instruction(const WgmmaProduct& one, const WgmmaProduct& other) {
  const WgmmaOperands &x = one.operands, &y = other.operands;
  return operand_a(x) == operand_a(y) && operand_b(x) == operand_b(y) &&
         x.accumulate == y.accumulate && !x.a_registers == !y.a_registers;
}

static void require_same_products(const Thread* group, size_t count, size_t groups) {
  for (uint32_t i = 1; i < WARPGROUP; i++) {
    if (group[i].product_groups.size() < groups || group[i].groups_left != group[0].groups_left ||
        in_groups(group[i].product_groups, groups) != int(count)) {
      fail("wgmma: not issued, committed and waited for by the whole warpgroup alike,");
    }
    for (size_t p = 0; p < count; p++) {
      if (same_instruction(group[i].products[p], group[0].products[p])) continue;
      current->site = group[0].products[p].site;
      fail("wgmma: operands differ across the warpgroup,");
    }
  }
}

static void read_a_registers(const Thread* group, size_t index, float* a) {
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    const WgmmaProduct& product = group[i].products[index];
    const WgmmaType type = product.operands.type;
    if (checking && memcmp(product.operands.a_registers, product.a_values,
                           sizeof product.a_values) != 0) {
      current->site = product.site;
      fail("wgmma: registers of a were written while the product is in flight,");
    }
    const uint32_t depth = uint32_t(SLAB_BYTES / item_bytes(type));
    float* rows = a + i / WARP * 16 * depth;
    if (type == WgmmaType::TF32) {
      place_tf32(i % WARP, product.a_values, rows, depth);
    } else {
      place_16_bit(i % WARP, product.a_values, rows, depth,
                   [&](uint32_t bits) { return decode(bits, type); });
    }
  }
}

// Operands that several products of one wait share are read once.
struct Slab {
  Operand operand;
  float values[MAX_DEPTH * MAX_COLUMNS];
};

static const float* slab(std::deque<Slab>& known, const Operand& operand,
                         void (*read)(const Operand&, float*)) {
  for (const Slab& one : known) {
    if (one.operand == operand) return one.values;
  }
  known.emplace_back();
  known.back().operand = operand;
  read(operand, known.back().values);
  return known.back().values;
}

// d of the whole warpgroup, as rows of `columns` items.
struct AccumulatorTile {
  float items[WGMMA_ROWS * MAX_COLUMNS];
  Accumulator* parts[WARPGROUP];

  template <class Visit>  // of the pairs that a thread holds
  static void for_each_pair(uint32_t thread, int columns, Visit visit) {
    const uint32_t lane = thread % WARP, row = thread / WARP * 16 + lane / 4;
    for (uint32_t i = 0; i < uint32_t(columns) / 4; i++) {
      visit(i * 2, (row + i % 2 * 8) * uint32_t(columns) + i / 2 * 8 + lane % 4 * 2);
    }
  }

  void load(Thread* group, size_t index) {
    for (uint32_t i = 0; i < WARPGROUP; i++) {
      parts[i] = &accumulator_of(group[i], group[i].products[index].operands.d);
      const float* values = parts[i]->values;
      for_each_pair(i, parts[i]->columns, [&](uint32_t from, uint32_t to) {
        memcpy(items + to, values + from, 2 * sizeof(float));
      });
    }
  }

  void store() const {
    for (uint32_t i = 0; i < WARPGROUP; i++) {
      float* values = parts[i]->values;
      for_each_pair(i, parts[i]->columns, [&](uint32_t to, uint32_t from) {
        memcpy(values + to, items + from, 2 * sizeof(float));
      });
    }
  }

  bool is_that_of(const Thread* group, size_t index) const {
    for (uint32_t i = 0; i < WARPGROUP; i++) {
      if (parts[i]->registers != group[i].products[index].operands.d) return false;
    }
    return true;
  }
};

static void multiply(Thread* group, size_t count) {
  if (checking) start_operand_reads(group);
  std::deque<Slab> slabs_of_a, slabs_of_b;
  static AccumulatorTile d;
  static float a_registers[WGMMA_ROWS * MAX_DEPTH];
  for (size_t index = 0; index < count; index++) {
    const WgmmaOperands& product = group[0].products[index].operands;
    if (index == 0) d.load(group, index);
    if (!d.is_that_of(group, index)) {
      d.store();
      d.load(group, index);
    }
    if (!product.accumulate) std::fill_n(d.items, WGMMA_ROWS * product.columns, 0.0f);
    const float* a = a_registers;
    if (product.a_registers) {
      read_a_registers(group, index, a_registers);
    } else {
      a = slab(slabs_of_a, operand_a(product), read_a);
    }
    const float* b = slab(slabs_of_b, operand_b(product), read_b);
    const TileShape shape{WGMMA_ROWS, product.columns, SLAB_BYTES / item_bytes(product.type)};
    multiply_add(d.items, a, b, shape, format_of(product.type));
  }
  if (count) d.store();
}

// wgmma.wait_group is .sync.aligned: it orders the lanes of each warp.
static void order_warps(Thread* group) {
  for (uint32_t warp = 0; warp < WARPGROUP / WARP; warp++) {
    Thread* lanes = group + WARP * warp;
    VectorClock* clock = new_empty_clock();
    for (uint32_t i = 0; i < WARP; i++) {
      if (i == 0 || lanes[i].knows != lanes[i - 1].knows) join_clock(clock, lanes[i].knows);
    }
    for (uint32_t i = 0; i < WARP; i++) join_thread(clock, lanes[i]);
    for (uint32_t i = 0; i < WARP; i++) {
      lanes[i].time++;
      set_clock(lanes[i], clock);
    }
    drop_clock(clock);
  }
}

void wgmma_wait(int groups_left, Site site) {
  current->site = site;
  current->groups_left = groups_left;
  const uint32_t first = current->id / WARPGROUP * WARPGROUP;
  Thread* group = &threads[first];
  require_whole_warpgroup("wgmma");
  current->state = State::AT_WGMMA_WAIT;
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    if (group[i].state != State::AT_WGMMA_WAIT) return wait_for_turn();
  }
  const size_t groups = group[0].product_groups.size();
  const size_t finished = groups > size_t(groups_left) ? groups - size_t(groups_left) : 0;
  const auto landed = size_t(in_groups(group[0].product_groups, finished));
  require_same_products(group, landed, finished);
  multiply(group, landed);
  if (checking) order_warps(group);
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    group[i].products_fenced = false;
    auto& products = group[i].products;
    for (size_t p = 0; p < landed; p++) release_accumulator(group[i], products[p]);
    products.erase(products.begin(), products.begin() + long(landed));
    auto& counts = group[i].product_groups;
    counts.erase(counts.begin(), counts.begin() + long(finished));
    if (&group[i] != current) make_ready(first + i);
  }
  current->state = State::READY;
}

}  // namespace emulator
