// Wrappers of PTX instructions: the only file with inline PTX.
//
// The emulator of the tests has functions of the same names instead.
#pragma once

#if !defined(GPUGRAD_EMULATOR)
namespace ptx {

// An address in the shared state space.
__device__ __forceinline__ unsigned smem_u32(const void* p) {
  return unsigned(__cvta_generic_to_shared(p));
}

// ---- cp.async: copies from global to shared memory. `bytes` is src-size: the rest is zero-filled;
// nothing is read where it is 0.
__device__ __forceinline__ void cp_async16(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(smem_u32(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async8(void* to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
               :: "r"(smem_u32(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int GROUPS_LEFT>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(GROUPS_LEFT) : "memory");
}

// ---- ldmatrix: four 8 × 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of
// matrix l / 8, and gets elements (l / 4, 2 (l % 4)) and the next of each, or of its transpose.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(row)) : "memory");
}

// ---- mma.sync: d += a b on the tensor cores, by a whole warp
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4],
                                                 const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m8n8k4_f64(double (&d)[2], double a, double b) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(d[0]), "+d"(d[1]) : "d"(a), "d"(b));
}
#if __CUDA_ARCH__ >= 900
// Row g + 8 h of a and d, of lane 4 g + t: column t + 4 s of a, 2 t + v of d; row t + 4 s of b.
__device__ __forceinline__ void mma_m16n8k16_f64(double (&d)[2][2], const double (&a)[4][2],
                                                 const double (&b)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7, %8, %9, %10, %11}, {%12, %13, %14, %15}, {%0, %1, %2, %3};"
      : "+d"(d[0][0]), "+d"(d[0][1]), "+d"(d[1][0]), "+d"(d[1][1])
      : "d"(a[0][0]), "d"(a[0][1]), "d"(a[1][0]), "d"(a[1][1]), "d"(a[2][0]), "d"(a[2][1]),
        "d"(a[3][0]), "d"(a[3][1]), "d"(b[0]), "d"(b[1]), "d"(b[2]), "d"(b[3]));
}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// ---- elect.sync: true in one thread of a converged warp, the same one at every call. Under a
// comparison of thread indices instead, ptxas puts each TMA instruction into a loop over threads.
__device__ __forceinline__ bool elect_one() {
  unsigned elected;
  asm volatile("{\n .reg .pred leader;\n elect.sync _|leader, 0xffffffff;\n"
               " selp.u32 %0, 1, 0, leader;\n}"
               : "=r"(elected));
  return elected;
}

// ---- mbarrier: a phase completes when no arrivals are pending and its tx-count is zero
__device__ __forceinline__ void mbar_init(void* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :: "r"(smem_u32(barrier)), "r"(arrivals) : "memory");
}
// Makes initialised mbarriers visible to the async proxy and, after a cluster barrier, to the
// cluster.
__device__ __forceinline__ void fence_mbar_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbar_arrive(void* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(smem_u32(barrier)) : "memory");
}
// Arrives, after an increase of the tx-count by so many bytes.
__device__ __forceinline__ void mbar_expect_tx(void* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"(smem_u32(barrier)), "r"(bytes) : "memory");
}
// Waits until the phase of a parity is complete; the phase before the first has parity 1.
__device__ __forceinline__ void mbar_wait(void* barrier, unsigned parity) {
  unsigned done;
  do {
    asm volatile("{\n .reg .pred ended;\n"
                 " mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
                 " selp.u32 %0, 1, 0, ended;\n}"
                 : "=r"(done) : "r"(smem_u32(barrier)), "r"(parity) : "memory");
  } while (!done);
}

// ---- cp.async.bulk.tensor (TMA): the box of a tensor at (column, row, plane) to shared memory,
// zero-filled out of bounds; completes on the mbarrier
__device__ __forceinline__ void tma_prefetch(const void* tensor_map) {
  asm volatile("prefetch.tensormap [%0];" :: "l"(tensor_map) : "memory");
}
__device__ __forceinline__ void tma_load_3d(void* to, const void* tensor_map, int column, int row,
                                            int plane, void* barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];"
               :: "r"(smem_u32(to)), "l"(tensor_map), "r"(smem_u32(barrier)), "r"(column), "r"(row),
                  "r"(plane)
               : "memory");
}

// The same to the same offset in every CTA of the mask, where it completes on the same mbarrier.
__device__ __forceinline__ void tma_load_3d_multicast(void* to, const void* tensor_map, int column,
                                                      int row, int plane, void* barrier,
                                                      unsigned short mask) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;"
               :: "r"(smem_u32(to)), "l"(tensor_map), "r"(smem_u32(barrier)), "r"(column), "r"(row),
                  "r"(plane), "h"(mask)
               : "memory");
}

// ---- clusters
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// A barrier of the cluster's threads that have not exited. Its arrival is relaxed: it orders no
// memory but, after fence_mbar_init, makes initialised mbarriers visible.
__device__ __forceinline__ void cluster_sync_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n barrier.cluster.wait.acquire.aligned;"
               ::: "memory");
}
// Arrives at the mbarrier at the same offset in a CTA of the cluster.
__device__ __forceinline__ void mbar_arrive_cluster(void* barrier, unsigned rank) {
  asm volatile("{\n .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n"
               " mbarrier.arrive.shared::cluster.b64 _, [there];\n}"
               :: "r"(smem_u32(barrier)), "r"(rank) : "memory");
}

// ---- setmaxnreg: registers per thread, executed by all warps of a warpgroup
template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(REGISTERS));
}

// ---- wgmma: d = a b, plus d if scale_d is not 0, by a warpgroup. a and b are the matrix
// descriptors of A (64, 16) and B (16, COLUMNS) in shared memory, K-major, or MN-major where
// TRANSPOSED. Element 4 i + 2 h + v of d is of row 16 warp + 8 h + lane / 4 and of column 8 i + 2
// (lane % 4) + v.
//
// It is asynchronous: registers d may not be accessed between wgmma_fence and wgmma_wait, which
// take d as an operand so that the compiler orders accesses.
#define REGISTERS_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_64 REGISTERS_32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_96 REGISTERS_64 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define REGISTERS_128 REGISTERS_96 ", " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define OPERANDS_8(d, i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define OPERANDS_32(d, i) \
  OPERANDS_8(d, i), OPERANDS_8(d, i + 8), OPERANDS_8(d, i + 16), OPERANDS_8(d, i + 24)
#define OPERANDS_64(d) OPERANDS_32(d, 0), OPERANDS_32(d, 32)
#define OPERANDS_96(d) OPERANDS_64(d), OPERANDS_32(d, 64)
#define OPERANDS_128(d) OPERANDS_96(d), OPERANDS_32(d, 96)
#define WGMMA(SHAPE, TYPE, REGISTERS, A, B, SCALE, TRANSPOSED, ...)                              \
  asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, " SCALE ", 0;\n"                         \
               " wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPE "." TYPE " {" REGISTERS "}, " \
               A ", " B ", add, 1, 1, " TRANSPOSED ";\n}"                                        \
               : __VA_ARGS__                                                                     \
               : "l"(a), "l"(b), "r"(scale_d), "n"(int(A_TRANSPOSED)), "n"(int(B_TRANSPOSED)))
#define WGMMA_OF(NAME, TYPE)                                                                     \
  template <int COLUMNS, bool A_TRANSPOSED, bool B_TRANSPOSED>                                   \
  __device__ __forceinline__ void NAME(float (&d)[COLUMNS / 2], unsigned long long a,            \
                                       unsigned long long b, int scale_d) {                      \
    static_assert(COLUMNS % 64 == 0 && COLUMNS <= 256, "the shapes that are used");              \
    if constexpr (COLUMNS == 64)                                                                 \
      WGMMA("m64n64k16", TYPE, REGISTERS_32, "%32", "%33", "%34", "%35, %36", OPERANDS_32(d, 0)); \
    if constexpr (COLUMNS == 128)                                                                \
      WGMMA("m64n128k16", TYPE, REGISTERS_64, "%64", "%65", "%66", "%67, %68", OPERANDS_64(d));  \
    if constexpr (COLUMNS == 192)                                                                \
      WGMMA("m64n192k16", TYPE, REGISTERS_96, "%96", "%97", "%98", "%99, %100", OPERANDS_96(d)); \
    if constexpr (COLUMNS == 256)                                                                \
      WGMMA("m64n256k16", TYPE, REGISTERS_128, "%128", "%129", "%130", "%131, %132",             \
            OPERANDS_128(d));                                                                    \
  }
WGMMA_OF(wgmma_bf16, "bf16")
WGMMA_OF(wgmma_f16, "f16")
// An instruction with all of d as operands.
#define WITH_ALL_OF(d, COUNT, INSTRUCTION)                                                       \
  if constexpr (COUNT == 32) asm volatile(INSTRUCTION : OPERANDS_32(d, 0) :: "memory");          \
  if constexpr (COUNT == 64) asm volatile(INSTRUCTION : OPERANDS_64(d) :: "memory");             \
  if constexpr (COUNT == 96) asm volatile(INSTRUCTION : OPERANDS_96(d) :: "memory");          \
  if constexpr (COUNT == 128) asm volatile(INSTRUCTION : OPERANDS_128(d) :: "memory");
template <int COUNT>
__device__ __forceinline__ void wgmma_fence(float (&d)[COUNT]) {
  WITH_ALL_OF(d, COUNT, "wgmma.fence.sync.aligned;")
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits for all wgmma groups but the last GROUPS_LEFT, whose d remains in use.
template <int GROUPS_LEFT>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS_LEFT) : "memory");
}
// Waits for all wgmma groups.
template <int COUNT>
__device__ __forceinline__ void wgmma_wait(float (&d)[COUNT]) {
  WITH_ALL_OF(d, COUNT, "wgmma.wait_group.sync.aligned 0;")
}
#undef WITH_ALL_OF
#undef WGMMA_OF
#undef WGMMA
#undef OPERANDS_128
#undef OPERANDS_96
#undef OPERANDS_64
#undef OPERANDS_32
#undef OPERANDS_8
#undef REGISTERS_128
#undef REGISTERS_96
#undef REGISTERS_64
#undef REGISTERS_32
#endif

}  // namespace ptx
#endif
