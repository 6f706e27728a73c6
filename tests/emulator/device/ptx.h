// Stand-ins for the wrappers of inline PTX in namespace ptx: same names and signatures, and a few more.
#pragma once
#include "intrinsics.h"
#include "warp.h"

namespace ptx {

using emulator::Collective;
using emulator::Site;
constexpr uint32_t FULL_WARP = 0xffffffffu;

inline uint32_t smem_u32(const void* address) { return emulator::shared_offset(address); }

// ---- cp.async: the first `bytes` come from global memory, the rest are zeros
EMULATOR_UNCHECKED inline void cp_async16(void* shared, const void* global, int bytes = 16) {
  emulator::copy_async(shared, global, 16, bytes, __builtin_return_address(0));
}
EMULATOR_UNCHECKED inline void cp_async8(void* shared, const void* global, int bytes = 8) {
  emulator::copy_async(shared, global, 8, bytes, __builtin_return_address(0));
}
EMULATOR_UNCHECKED inline void cp_async4(void* shared, const void* global, int bytes = 4) {
  emulator::copy_async(shared, global, 4, bytes, __builtin_return_address(0));
}
inline void cp_async_commit() { emulator::copy_async_commit(); }
template <int GROUPS_LEFT>
inline void cp_async_wait() {
  emulator::copy_async_wait(GROUPS_LEFT);
}
inline void cp_async_wait_all() { emulator::copy_async_wait(-1); }

// ---- cvt.rna.tf32.f32: to nearest, ties away from zero
inline uint32_t to_tf32(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
  return bits & 0xffffe000u;
}

// ---- mma.sync: d += a b
EMULATOR_UNCHECKED inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2],
                                                Site site = Site::here()) {
  emulator::MmaOperands operands{d, a, b};
  emulator::warp_collective(Collective::MMA, FULL_WARP, &operands, emulator::mma_tf32, site);
}
EMULATOR_UNCHECKED inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                 const uint32_t (&b)[2],
                                                 Site site = Site::here()) {
  emulator::MmaOperands operands{d, a, b};
  emulator::warp_collective(Collective::MMA, FULL_WARP, &operands, emulator::mma_bf16, site);
}
EMULATOR_UNCHECKED inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2],
                                                Site site = Site::here()) {
  emulator::MmaOperands operands{d, a, b};
  emulator::warp_collective(Collective::MMA, FULL_WARP, &operands, emulator::mma_f16, site);
}
EMULATOR_UNCHECKED inline void mma_m8n8k4_f64(double (&d)[2], double a, double b,
                                              Site site = Site::here()) {
  emulator::MmaOperands operands{d, &a, &b};
  emulator::warp_collective(Collective::MMA, FULL_WARP, &operands, emulator::mma_f64, site);
}
EMULATOR_UNCHECKED inline void mma_m16n8k16_f64(double (&d)[2][2], const double (&a)[4][2],
                                                const double (&b)[4], Site site = Site::here()) {
  emulator::MmaOperands operands{d, a, b};
  emulator::warp_collective(Collective::MMA, FULL_WARP, &operands, emulator::mma_f64_large, site);
}

// ---- ldmatrix, stmatrix
template <int MATRICES>
EMULATOR_UNCHECKED void move_matrices(const uint32_t* registers, const void* row, Collective kind,
                                      emulator::CollectiveBody body, Site site) {
  emulator::MatrixOperands operands{const_cast<uint32_t*>(registers), const_cast<void*>(row),
                                    MATRICES};
  emulator::warp_collective(kind, FULL_WARP, &operands, body, site);
}
#define EMULATOR_MATRICES(N)                                                                     \
  inline void ldmatrix_x##N(uint32_t (&r)[N], const void* row, Site site = Site::here()) {       \
    move_matrices<N>(r, row, Collective::LDMATRIX, emulator::ldmatrix, site);                    \
  }                                                                                              \
  inline void ldmatrix_x##N##_trans(uint32_t (&r)[N], const void* row,                           \
                                    Site site = Site::here()) {                                  \
    move_matrices<N>(r, row, Collective::LDMATRIX, emulator::ldmatrix_transposed, site);         \
  }                                                                                              \
  inline void stmatrix_x##N(void* row, const uint32_t (&r)[N], Site site = Site::here()) {       \
    move_matrices<N>(r, row, Collective::STMATRIX, emulator::stmatrix, site);                    \
  }                                                                                              \
  inline void stmatrix_x##N##_trans(void* row, const uint32_t (&r)[N],                           \
                                    Site site = Site::here()) {                                  \
    move_matrices<N>(r, row, Collective::STMATRIX, emulator::stmatrix_transposed, site);         \
  }
EMULATOR_MATRICES(1)
EMULATOR_MATRICES(2)
EMULATOR_MATRICES(4)
#undef EMULATOR_MATRICES

// ---- named barriers
inline void bar_sync(int id, int count, Site site = Site::here()) {
  emulator::barrier(id, count, true, site);
}
inline void bar_arrive(int id, int count, Site site = Site::here()) {
  emulator::barrier(id, count, false, site);
}

// ---- mbarrier (barriers are 8 bytes of any type)
inline void mbar_init(void* barrier, uint32_t count, Site site = Site::here()) {
  emulator::mbarrier_init(static_cast<uint64_t*>(barrier), count, site);
}
inline void fence_mbar_init() { emulator::fence_mbarrier_init(); }
inline void fence_proxy_async() { emulator::fence_async_proxy(); }
inline void mbar_arrive(void* barrier, Site site = Site::here()) {
  emulator::mbarrier_arrive(static_cast<uint64_t*>(barrier), 0, site);
}
inline void mbar_expect_tx(void* barrier, uint32_t bytes, Site site = Site::here()) {
  emulator::mbarrier_arrive(static_cast<uint64_t*>(barrier), bytes, site);
}
inline void mbar_wait(void* barrier, uint32_t parity, Site site = Site::here()) {
  emulator::mbarrier_wait(static_cast<uint64_t*>(barrier), parity, site);
}

// ---- elect.sync: kernels cannot know whom it elects; here it is the last lane
inline bool elect_one(Site site = Site::here()) {
  const uint32_t lanes = __ballot_sync(FULL_WARP, true, site);
  return lanes >> emulator::lane_index() == 1;
}

// ---- clusters
inline uint32_t cluster_rank() { return emulator::cluster_rank(); }
inline void cluster_sync(Site site = Site::here()) { emulator::cluster_sync(true, site); }
// barrier.cluster.arrive.relaxed: of what came before, only fenced initialisations are ordered
inline void cluster_sync_relaxed(Site site = Site::here()) { emulator::cluster_sync(false, site); }
inline void mbar_arrive_cluster(void* barrier, uint32_t rank, Site site = Site::here()) {
  emulator::mbarrier_arrive_in_cluster(static_cast<uint64_t*>(barrier), rank, site);
}

// ---- cp.async.bulk.tensor (TMA): coordinates of the box, c0 in the contiguous dimension
inline void tma_prefetch(const void* tensor_map, Site site = Site::here()) {
  emulator::prefetch_tensor_map(tensor_map, site);
}
inline void tma_load_2d(void* shared, const void* tensor_map, int c0, int c1, void* barrier,
                        Site site = Site::here()) {
  emulator::bulk_copy(shared, tensor_map, {2, {c0, c1}}, static_cast<uint64_t*>(barrier), site);
}
inline void tma_load_3d(void* shared, const void* tensor_map, int c0, int c1, int c2,
                        void* barrier, Site site = Site::here()) {
  emulator::bulk_copy(shared, tensor_map, {3, {c0, c1, c2}}, static_cast<uint64_t*>(barrier),
                      site);
}
inline void tma_load_4d(void* shared, const void* tensor_map, int c0, int c1, int c2, int c3,
                        void* barrier, Site site = Site::here()) {
  emulator::bulk_copy(shared, tensor_map, {4, {c0, c1, c2, c3}}, static_cast<uint64_t*>(barrier),
                      site);
}

inline void tma_load_3d_multicast(void* shared, const void* tensor_map, int c0, int c1, int c2,
                                  void* barrier, uint16_t blocks, Site site = Site::here()) {
  emulator::multicast_copy(shared, tensor_map, {3, {c0, c1, c2}}, static_cast<uint64_t*>(barrier),
                           blocks, site);
}

// ---- wgmma: d = a b, plus d if `scale_d` is not 0
inline void wgmma_fence() { emulator::wgmma_fence(); }
inline void wgmma_commit() { emulator::wgmma_commit(); }
template <int GROUPS_LEFT>
inline void wgmma_wait(Site site = Site::here()) {
  emulator::wgmma_wait(GROUPS_LEFT, site);
}
// Where all of d is named, for the compiler
template <int COUNT>
inline void wgmma_fence(float (&)[COUNT]) {
  emulator::wgmma_fence();
}
template <int COUNT>
inline void wgmma_wait(float (&)[COUNT], Site site = Site::here()) {
  emulator::wgmma_wait(0, site);
}
// a and b are descriptors; a is four registers in the functions whose names end in _rs
using emulator::WgmmaType;
template <int COLUMNS>
constexpr bool IS_WGMMA_WIDTH = COLUMNS >= 8 && COLUMNS <= 256 && COLUMNS % 8 == 0;
template <int COLUMNS>
inline void wgmma_tf32(float (&d)[COLUMNS / 2], uint64_t a, uint64_t b, int scale_d,
                       Site site = Site::here()) {
  static_assert(IS_WGMMA_WIDTH<COLUMNS>, "wgmma has 8, 16, ... 256 columns");
  emulator::wgmma({d, COLUMNS, a, b, nullptr, WgmmaType::TF32, false, false, scale_d != 0}, site);
}
template <int COLUMNS>
inline void wgmma_tf32_rs(float (&d)[COLUMNS / 2], const uint32_t (&a)[4], uint64_t b, int scale_d,
                          Site site = Site::here()) {
  static_assert(IS_WGMMA_WIDTH<COLUMNS>, "wgmma has 8, 16, ... 256 columns");
  emulator::wgmma({d, COLUMNS, 0, b, a, WgmmaType::TF32, false, false, scale_d != 0}, site);
}
#define EMULATOR_WGMMA_16_BIT(NAME, TYPE)                                                        \
  template <int COLUMNS, bool A_TRANSPOSED = false, bool B_TRANSPOSED = false>                   \
  inline void NAME(float (&d)[COLUMNS / 2], uint64_t a, uint64_t b, int scale_d,                 \
                   Site site = Site::here()) {                                                   \
    static_assert(IS_WGMMA_WIDTH<COLUMNS>, "wgmma has 8, 16, ... 256 columns");                  \
    emulator::wgmma(                                                                             \
        {d, COLUMNS, a, b, nullptr, TYPE, A_TRANSPOSED, B_TRANSPOSED, scale_d != 0}, site);      \
  }                                                                                              \
  template <int COLUMNS, bool B_TRANSPOSED = false>                                              \
  inline void NAME##_rs(float (&d)[COLUMNS / 2], const uint32_t (&a)[4], uint64_t b,             \
                        int scale_d, Site site = Site::here()) {                                 \
    static_assert(IS_WGMMA_WIDTH<COLUMNS>, "wgmma has 8, 16, ... 256 columns");                  \
    emulator::wgmma({d, COLUMNS, 0, b, a, TYPE, false, B_TRANSPOSED, scale_d != 0}, site);       \
  }
EMULATOR_WGMMA_16_BIT(wgmma_bf16, WgmmaType::BF16)
EMULATOR_WGMMA_16_BIT(wgmma_f16, WgmmaType::F16)
#undef EMULATOR_WGMMA_16_BIT
inline void wgmma_m64n64k8_tf32(float (&d)[32], uint64_t a, uint64_t b, int scale_d,
                                Site site = Site::here()) {
  wgmma_tf32<64>(d, a, b, scale_d, site);
}
inline void wgmma_m64n64k16_bf16(float (&d)[32], uint64_t a, uint64_t b, int scale_d,
                                 Site site = Site::here()) {
  wgmma_bf16<64>(d, a, b, scale_d, site);
}

// ---- registers of a warpgroup
template <int REGISTERS>
inline void setmaxnreg_inc(Site site = Site::here()) {
  emulator::set_max_registers(REGISTERS, true, site);
}
template <int REGISTERS>
inline void setmaxnreg_dec(Site site = Site::here()) {
  emulator::set_max_registers(REGISTERS, false, site);
}

}  // namespace ptx
