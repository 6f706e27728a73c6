// ldmatrix, stmatrix and mma.sync: which register of which lane holds which element.
#include <cmath>

#include "checker.h"
#include "failures.h"
#include "fragments.h"
#include "wavefronts.h"

namespace emulator {

static void require_whole_warp(uint32_t mask, const char* what) {
  if (mask != 0xffffffffu) fail("%s in a partial warp", what);
}

static MmaOperands& mma_operands(void** operations, uint32_t lane) {
  return *static_cast<MmaOperands*>(operations[lane]);
}

// ---- ldmatrix and stmatrix: 8x8 matrices of 16-bit items; lanes 8m to 8m + 7 give the rows of
// matrix m, and each register holds two neighbours of a row (of a column, transposed)

constexpr int ROW_BYTES = 16;

static MatrixOperands& matrix_operands(void** operations, uint32_t lane) {
  return *static_cast<MatrixOperands*>(operations[lane]);
}

// The address of a row, after checking that its lane may access it.
static void* checked_row(void** operations, uint32_t lane, Access access) {
  void* row = matrix_operands(operations, lane).row;
  if (address_of(row) % ROW_BYTES) {
    fail("ldmatrix or stmatrix: the row address of lane %u is not 16-byte aligned,", lane);
  }
  if (!shared_memory.holds(address_of(row))) {
    fail("ldmatrix or stmatrix: the row address of lane %u is not in shared memory,", lane);
  }
  if (checking) {
    Thread* caller = current;
    current = &threads[caller->id / WARP * WARP + lane];
    check_access(row, ROW_BYTES, access, nullptr);
    current = caller;
  }
  return row;
}

static uint16_t& register_item(void** operations, uint32_t matrix, uint32_t row, uint32_t column) {
  uint32_t* registers = matrix_operands(operations, row * 4 + column / 2).registers;
  return reinterpret_cast<uint16_t*>(&registers[matrix])[column % 2];
}

static void load_matrices(void** operations, uint32_t mask, bool transposed) {
  require_whole_warp(mask, "ldmatrix");
  const auto lanes = uint32_t(matrix_operands(operations, 0).matrices) * 8;
  uint16_t rows[WARP][8];
  void* addresses[WARP];
  for (uint32_t lane = 0; lane < lanes; lane++) {
    addresses[lane] = checked_row(operations, lane, Access::READ);
    memcpy(rows[lane], addresses[lane], ROW_BYTES);
  }
  count_matrices(RequestKind::MATRIX_LOAD, addresses, lanes);
  for (uint32_t lane = 0; lane < lanes; lane++) {
    for (uint32_t i = 0; i < 8; i++) {
      const uint32_t row = transposed ? i : lane % 8, column = transposed ? lane % 8 : i;
      register_item(operations, lane / 8, row, column) = rows[lane][i];
    }
  }
}

static void store_matrices(void** operations, uint32_t mask, bool transposed) {
  require_whole_warp(mask, "stmatrix");
  const auto lanes = uint32_t(matrix_operands(operations, 0).matrices) * 8;
  void* addresses[WARP];
  for (uint32_t lane = 0; lane < lanes; lane++) {
    addresses[lane] = checked_row(operations, lane, Access::WRITE);
    auto* items = static_cast<uint16_t*>(addresses[lane]);
    for (uint32_t i = 0; i < 8; i++) {
      const uint32_t row = transposed ? i : lane % 8, column = transposed ? lane % 8 : i;
      items[i] = register_item(operations, lane / 8, row, column);
    }
  }
  count_matrices(RequestKind::MATRIX_STORE, addresses, lanes);
}

void ldmatrix(void** operations, uint32_t mask) { load_matrices(operations, mask, false); }
void ldmatrix_transposed(void** operations, uint32_t mask) {
  load_matrices(operations, mask, true);
}
void stmatrix(void** operations, uint32_t mask) { store_matrices(operations, mask, false); }
void stmatrix_transposed(void** operations, uint32_t mask) {
  store_matrices(operations, mask, true);
}

// ---- mma.sync, 16 x 8 results: lane = 4 * group + member

template <int K>
struct Tile {
  float a[16][K];
  float b[K][8];
};

template <int K>
static void accumulate(void** operations, const Tile<K>& tile, OperandFormat format) {
  float sums[16][8];
  const auto item = [&](uint32_t lane, int i) -> float& {
    return sums[lane / 4 + uint32_t(i) / 2 * 8][lane % 4 * 2 + uint32_t(i) % 2];
  };
  const auto results = [&](uint32_t lane) {
    return static_cast<float*>(mma_operands(operations, lane).d);
  };
  for (uint32_t lane = 0; lane < WARP; lane++) {
    for (int i = 0; i < 4; i++) item(lane, i) = results(lane)[i];
  }
  multiply_add(sums[0], tile.a[0], tile.b[0], TileShape{16, 8, K}, format);
  for (uint32_t lane = 0; lane < WARP; lane++) {
    for (int i = 0; i < 4; i++) results(lane)[i] = item(lane, i);
  }
}

void mma_tf32(void** operations, uint32_t mask) {
  require_whole_warp(mask, "mma.sync");
  Tile<8> tile;
  for (uint32_t lane = 0; lane < WARP; lane++) {
    const auto* a = static_cast<const uint32_t*>(mma_operands(operations, lane).a);
    const auto* b = static_cast<const uint32_t*>(mma_operands(operations, lane).b);
    const uint32_t group = lane / 4, member = lane % 4;
    place_tf32(lane, a, tile.a[0], 8);
    tile.b[member][group] = from_tf32(b[0]);
    tile.b[member + 4][group] = from_tf32(b[1]);
  }
  accumulate(operations, tile, TF32);
}

template <float (*DECODE)(uint32_t)>
static void mma_16_bit(void** operations, uint32_t mask, OperandFormat format) {
  require_whole_warp(mask, "mma.sync");
  Tile<16> tile;
  for (uint32_t lane = 0; lane < WARP; lane++) {
    const auto* a = static_cast<const uint32_t*>(mma_operands(operations, lane).a);
    const auto* b = static_cast<const uint32_t*>(mma_operands(operations, lane).b);
    place_16_bit(lane, a, tile.a[0], 16, DECODE);
    for (uint32_t i = 0; i < 2; i++) {
      const uint32_t k = lane % 4 * 2 + i * 8, column = lane / 4;
      tile.b[k][column] = DECODE(b[i] & 0xffffu);
      tile.b[k + 1][column] = DECODE(b[i] >> 16);
    }
  }
  accumulate(operations, tile, format);
}

void mma_bf16(void** operations, uint32_t mask) { mma_16_bit<from_bf16>(operations, mask, BF16); }
void mma_f16(void** operations, uint32_t mask) { mma_16_bit<from_f16>(operations, mask, F16); }

// M x 8 results; IEEE multiply-adds in ascending order
template <uint32_t M, uint32_t K>
static void multiply_f64(void** operations, uint32_t mask) {
  require_whole_warp(mask, "mma.sync");
  double a[M][K], b[K][8];
  for (uint32_t lane = 0; lane < WARP; lane++) {
    const auto* from_a = static_cast<const double*>(mma_operands(operations, lane).a);
    const auto* from_b = static_cast<const double*>(mma_operands(operations, lane).b);
    for (uint32_t k = 0; k < K; k += 4) {
      for (uint32_t row = 0; row < M; row += 8) a[row + lane / 4][k + lane % 4] = *from_a++;
      b[k + lane % 4][lane / 4] = *from_b++;
    }
  }
  for (uint32_t lane = 0; lane < WARP; lane++) {
    auto* d = static_cast<double*>(mma_operands(operations, lane).d);
    for (uint32_t i = 0; i < M / 4; i++) {
      for (uint32_t k = 0; k < K; k++) {
        d[i] = std::fma(a[i / 2 * 8 + lane / 4][k], b[k][lane % 4 * 2 + i % 2], d[i]);
      }
    }
  }
}

void mma_f64(void** operations, uint32_t mask) { multiply_f64<8, 4>(operations, mask); }
void mma_f64_large(void** operations, uint32_t mask) { multiply_f64<16, 16>(operations, mask); }

}  // namespace emulator
