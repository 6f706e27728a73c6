// wgmma: products of a warpgroup, computed when all four warps wait for them.
#include "bulk_copies.h"
#include "checker.h"
#include "failures.h"
#include "fragments.h"
#include "scheduler.h"

namespace emulator {

constexpr int ROWS = 64;          // of a and d
constexpr int SLAB_BYTES = 32;    // contraction of one instruction, per row or column
constexpr int MAX_COLUMNS = 256;
constexpr int MAX_K = 16;

static OperandFormat format_of(WgmmaType type) {
  switch (type) {
    case WgmmaType::TF32:
      return TF32;
    case WgmmaType::BF16:
      return BF16;
    default:
      return F16;
  }
}

static float decode(uint32_t bits, WgmmaType type) {
  switch (type) {
    case WgmmaType::TF32:
      return from_tf32(bits);
    case WgmmaType::BF16:
      return from_bf16(bits);
    default:
      return from_f16(bits);
  }
}

struct Descriptor {
  uint64_t start, leading, stride;
  Swizzle swizzle;
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4),
        swizzle(Swizzle(bits >> 62)) {}
};

static int atom_row_bytes(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::BYTES_128:
      return 128;
    case Swizzle::BYTES_64:
      return 64;
    case Swizzle::BYTES_32:
      return 32;
    default:
      return 16;
  }
}

// K-major: a row of the operand is contiguous in k. Atoms are 8 rows.
static uint64_t k_major_offset(const Descriptor& d, int row, int k_byte) {
  uint64_t offset = d.start + uint64_t(row / 8) * d.stride;
  if (d.swizzle == Swizzle::NONE) {
    return offset + uint64_t(k_byte / 16) * d.leading + uint64_t(row % 8 * 16 + k_byte % 16);
  }
  offset += uint64_t(row % 8 * atom_row_bytes(d.swizzle) + k_byte);
  return swizzled(offset, d.swizzle);
}

// MN-major: a row of shared memory holds neighbouring rows of the operand for one k. Atoms are
// 8 values of k; `leading` separates atoms along the rows, `stride` atoms along k.
static uint64_t mn_major_offset(const Descriptor& d, int row_byte, int k) {
  const int width = atom_row_bytes(d.swizzle);
  const bool plain = d.swizzle == Swizzle::NONE;
  const uint64_t along_rows = plain ? d.stride : d.leading;
  const uint64_t along_k = plain ? d.leading : d.stride;
  const uint64_t offset = d.start + uint64_t(row_byte / width) * along_rows +
                          uint64_t(k / 8) * along_k +
                          uint64_t(k % 8 * width + row_byte % width);
  return swizzled(offset, d.swizzle);
}

static float operand_item(const Descriptor& descriptor, bool transposed, int row, int k,
                          WgmmaType type) {
  const int bytes = format_of(type).bytes;
  const uint64_t offset = transposed ? mn_major_offset(descriptor, row * bytes, k)
                                     : k_major_offset(descriptor, row, k * bytes);
  const char* item = shared_memory.begin + offset;
  if (item + bytes > shared_memory.end) fail("wgmma: a descriptor points outside shared memory,");
  if (checking) {
    check_access(item, bytes, Access::READ, nullptr);
    if (!last_write_is_in_async_proxy(item)) {
      fail_with(evidence_here(item), "wgmma reads what was written without fence.proxy.async");
    }
  }
  uint32_t bits = 0;
  memcpy(&bits, item, size_t(bytes));
  return decode(bits, type);
}

struct Operands {
  float a[ROWS][MAX_K];
  float b[MAX_K][MAX_COLUMNS];
};

static void read_a_registers(const Thread* warp, size_t index, float* a) {
  for (uint32_t lane = 0; lane < WARP; lane++) {
    const WgmmaOperands& product = warp[lane].products[index];
    if (product.type == WgmmaType::TF32) {
      place_tf32(lane, product.a_registers, a, MAX_K);
    } else {
      place_16_bit(lane, product.a_registers, a, MAX_K,
                   [&](uint32_t bits) { return decode(bits, product.type); });
    }
  }
}

// Each warp reads its 16 rows of a and all of b; its first lane stands for it in the checker.
static void read_operands(Thread* group, size_t index, int depth, Operands& out) {
  const WgmmaOperands& product = group[0].products[index];
  const Descriptor a(product.a), b(product.b);
  Thread* caller = current;
  for (int warp = 0; warp < 4; warp++) {
    current = &group[WARP * uint32_t(warp)];
    current->site = caller->site;
    if (product.a_registers) read_a_registers(current, index, out.a[16 * warp]);
    for (int row = 16 * warp; row < 16 * warp + 16 && !product.a_registers; row++) {
      for (int k = 0; k < depth; k++) {
        out.a[row][k] = operand_item(a, product.a_transposed, row, k, product.type);
      }
    }
    if (!checking && warp > 0) continue;
    for (int column = 0; column < product.columns; column++) {
      for (int k = 0; k < depth; k++) {
        out.b[k][column] = operand_item(b, product.b_transposed, column, k, product.type);
      }
    }
  }
  current = caller;
}

static void multiply(Thread* group, size_t index) {
  const WgmmaOperands product = group[0].products[index];
  const int depth = SLAB_BYTES / format_of(product.type).bytes;
  static Operands operands;
  for (uint32_t i = 1; i < WARPGROUP; i++) {
    if (group[i].products.size() <= index) fail("wgmma: not issued by the whole warpgroup,");
    const WgmmaOperands& other = group[i].products[index];
    if (other.a != product.a || other.b != product.b || other.accumulate != product.accumulate) {
      fail("wgmma: operands differ across the warpgroup,");
    }
  }
  read_operands(group, index, depth, operands);
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    float* d = group[i].products[index].d;
    const uint32_t lane = i % WARP;
    for (int j = 0; j < product.columns / 2; j++) {
      const uint32_t row = i / WARP * 16 + lane / 4 + (j & 2 ? 8 : 0);
      const uint32_t column = uint32_t(j / 4 * 8 + j % 2) + lane % 4 * 2;
      d[j] = sum_of_products(product.accumulate ? d[j] : 0.0f, operands.a[row],
                             &operands.b[0][column], depth, MAX_COLUMNS, format_of(product.type));
    }
  }
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

void wgmma_fence() { current->products_fenced = true; }

void wgmma(const WgmmaOperands& operands, Site site) {
  current->site = site;
  if (checking && !current->products_fenced) {
    fail("wgmma without wgmma.fence since the last wait,");
  }
  current->products.push_back(operands);
}

static int in_groups(const std::vector<int>& groups) {
  int sum = 0;
  for (int count : groups) sum += count;
  return sum;
}

void wgmma_commit() {
  auto& groups = current->product_groups;
  groups.push_back(int(current->products.size()) - in_groups(groups));
}

void wgmma_wait(int groups_left, Site site) {
  current->site = site;
  const uint32_t first = current->id / WARPGROUP * WARPGROUP;
  Thread* group = &threads[first];
  if (first + WARPGROUP > thread_count) fail("wgmma in a partial warpgroup,");
  current->state = State::AT_WGMMA_WAIT;
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    if (group[i].state != State::AT_WGMMA_WAIT) return wait_for_turn();
  }
  const size_t groups = group[0].product_groups.size();
  const size_t finished = groups > size_t(groups_left) ? groups - size_t(groups_left) : 0;
  size_t landed = 0;
  for (size_t i = 0; i < finished; i++) landed += size_t(group[0].product_groups[i]);
  for (size_t i = 0; i < landed; i++) multiply(group, i);
  if (checking) order_warps(group);
  for (uint32_t i = 0; i < WARPGROUP; i++) {
    group[i].products_fenced = false;
    auto& products = group[i].products;
    products.erase(products.begin(), products.begin() + long(landed));
    auto& counts = group[i].product_groups;
    counts.erase(counts.begin(), counts.begin() + long(finished));
    if (&group[i] != current) make_ready(first + i);
  }
  current->state = State::READY;
}

}  // namespace emulator
