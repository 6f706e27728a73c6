// Records what kernels ask of tensor cores, of mbarriers and of TMA, for a launch of the emulator in
// mode "check".
//
// Products are not computed. Each sets the accumulators to numbers of its own, which show in the
// result to where a kernel brings each of them. Include this before the kernel.
#pragma once
#include <cstring>

// All arrays of dynamic shared memory begin at one address; those of namespaces have other names.
inline unsigned char* dynamic_memory() {
  extern __shared__ __align__(1024) unsigned char shared[];
  return shared;
}

namespace recorded {

struct Product {
  long long block, thread, accumulators;  // the address of the first accumulator
  long long number;                       // what it is set to; the next is set to the next number
  // Registers of a, then of b; or their descriptors, whether they are transposed, and the columns.
  unsigned long long operands[12];
};
// What a thread does with an mbarrier; kind is that of recording.py.
enum Kind { INIT, ARRIVE, EXPECT, WAIT, SYNC, LOAD };
struct Event {
  long long block, thread, kind;
  long long barrier;  // its address
  long long value;    // arrivals, the block that is reached, bytes, a parity; of a load, bytes
  long long blocks;   // that a load reaches, a bit for each
};

constexpr int MAX_PRODUCTS = 1 << 16, MAX_EVENTS = 1 << 16, MAX_BLOCKS = 4, MEMORY = 232448;
#define RECORDED __attribute__((visibility("default")))
extern "C" {
RECORDED Product recorded_products[MAX_PRODUCTS];
RECORDED unsigned char recorded_memory[MAX_BLOCKS][MEMORY];  // dynamic shared memory of each block
RECORDED Event recorded_events[MAX_EVENTS];
RECORDED int recorded_product_count, recorded_event_count, recorded_number;
RECORDED unsigned recorded_start;  // of dynamic shared memory
}
#undef RECORDED

EMULATOR_UNCHECKED inline Product* next_product(const void* accumulators) {
  if (recorded_product_count == MAX_PRODUCTS) emulator::fail("too many products to record");
  Product* product = &recorded_products[recorded_product_count++];
  *product = {blockIdx.x, threadIdx.x, reinterpret_cast<long long>(accumulators), recorded_number};
  return product;
}

template <typename T>
EMULATOR_UNCHECKED void number(T* d, int count) {
  for (int i = 0; i < count; ++i) d[i] = T(recorded_number++);
}

// A product of a warp, whose operands are in registers.
template <int D, int A, int B, typename Sum, typename Register>
EMULATOR_UNCHECKED void in_registers(Sum* d, const Register* a, const Register* b) {
  static_assert(A + B <= 12, "registers of operands have room");
  Product* product = next_product(d);
  for (int i = 0; i < A; ++i) memcpy(&product->operands[i], &a[i], sizeof(Register));
  for (int i = 0; i < B; ++i) memcpy(&product->operands[A + i], &b[i], sizeof(Register));
  number(d, D);
}

// A product of a warpgroup; of shared memory, what it is at a block's last product is kept.
EMULATOR_UNCHECKED inline void in_shared_memory(float* d, unsigned long long a,
                                                unsigned long long b, bool a_transposed,
                                                bool b_transposed, int columns) {
  Product* product = next_product(d);
  const unsigned long long operands[] = {a, b, a_transposed, b_transposed, unsigned(columns)};
  memcpy(product->operands, operands, sizeof operands);
  number(d, columns / 2);
  recorded_start = ptx::smem_u32(dynamic_memory());
  if (threadIdx.x % 128 == 0)
    memcpy(recorded_memory[blockIdx.x % MAX_BLOCKS], dynamic_memory(), MEMORY);
}

EMULATOR_UNCHECKED inline void event(Kind kind, const void* barrier, long long value = 0,
                                     unsigned blocks = 0) {
  if (recorded_event_count == MAX_EVENTS) emulator::fail("too many events to record");
  recorded_events[recorded_event_count++] = {
      blockIdx.x, threadIdx.x, kind, barrier ? ptx::smem_u32(barrier) : 0, value, blocks};
}

// Of a box of the emulator's tensor maps (tensor_maps.py).
EMULATOR_UNCHECKED inline long long bytes_of_box(const void* map) {
  const unsigned* const box = static_cast<const unsigned*>(map) + 20;
  return (long long)(box[0]) * box[1] * box[2] * box[3] * box[5];
}

}  // namespace recorded

namespace recording_ptx {

using namespace ptx;

inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  recorded::in_registers<4, 4, 2>(d, a, b);
}
inline void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  recorded::in_registers<4, 4, 2>(d, a, b);
}
inline void mma_m8n8k4_f64(double (&d)[2], double a, double b) {
  recorded::in_registers<2, 1, 1>(d, &a, &b);
}
inline void mma_m16n8k16_f64(double (&d)[2][2], const double (&a)[4][2], const double (&b)[4]) {
  recorded::in_registers<4, 8, 4>(&d[0][0], &a[0][0], b);
}
template <int COLUMNS, bool A_TRANSPOSED, bool B_TRANSPOSED>
inline void wgmma_bf16(float (&d)[COLUMNS / 2], unsigned long long a, unsigned long long b, int) {
  recorded::in_shared_memory(d, a, b, A_TRANSPOSED, B_TRANSPOSED, COLUMNS);
}
template <int COLUMNS, bool A_TRANSPOSED, bool B_TRANSPOSED>
inline void wgmma_f16(float (&d)[COLUMNS / 2], unsigned long long a, unsigned long long b, int) {
  recorded::in_shared_memory(d, a, b, A_TRANSPOSED, B_TRANSPOSED, COLUMNS);
}

inline void mbar_init(void* barrier, unsigned arrivals) {
  recorded::event(recorded::INIT, barrier, arrivals);
  ptx::mbar_init(barrier, arrivals);
}
inline void mbar_arrive(void* barrier) {
  recorded::event(recorded::ARRIVE, barrier, ptx::cluster_rank());
  ptx::mbar_arrive(barrier);
}
inline void mbar_arrive_cluster(void* barrier, unsigned rank) {
  recorded::event(recorded::ARRIVE, barrier, rank);
  ptx::mbar_arrive_cluster(barrier, rank);
}
inline void mbar_expect_tx(void* barrier, unsigned bytes) {
  recorded::event(recorded::EXPECT, barrier, bytes);
  ptx::mbar_expect_tx(barrier, bytes);
}
inline void mbar_wait(void* barrier, unsigned parity) {
  recorded::event(recorded::WAIT, barrier, parity);
  ptx::mbar_wait(barrier, parity);
}
inline void cluster_sync_relaxed() {
  recorded::event(recorded::SYNC, nullptr);
  ptx::cluster_sync_relaxed();
}
inline void tma_load_3d(void* to, const void* map, int column, int row, int plane, void* barrier) {
  recorded::event(recorded::LOAD, barrier, recorded::bytes_of_box(map), 1u << ptx::cluster_rank());
  ptx::tma_load_3d(to, map, column, row, plane, barrier);
}
inline void tma_load_3d_multicast(void* to, const void* map, int column, int row, int plane,
                                  void* barrier, unsigned short blocks) {
  recorded::event(recorded::LOAD, barrier, recorded::bytes_of_box(map), blocks);
  ptx::tma_load_3d_multicast(to, map, column, row, plane, barrier, blocks);
}

}  // namespace recording_ptx
#define ptx recording_ptx
