// What emulated kernels ask of the runtime: the only declarations that both sides share.
#pragma once
#include <cstdint>

#define EMULATOR_HIDDEN __attribute__((visibility("hidden")))

namespace emulator {

// Where in a kernel's source a call stands; as a default argument it is the caller's place.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Site{file, line};
  }
};

// ---- warp collectives: the last lane to arrive computes for all of them
enum class Collective { SYNCWARP, SHUFFLE, VOTE, MMA, LDMATRIX, STMATRIX };
using CollectiveBody = void (*)(void** operations, uint32_t mask);  // operations[lane]
EMULATOR_HIDDEN void warp_collective(Collective kind, uint32_t mask, void* operation,
                                     CollectiveBody body, Site site);
EMULATOR_HIDDEN uint32_t lane_index();

// ---- barriers of a block
constexpr int ALL_THREADS = -1;
EMULATOR_HIDDEN void barrier(int id, int count, bool wait, Site site);
EMULATOR_HIDDEN int barrier_count(int predicate, Site site);  // __syncthreads_count

// ---- clusters
EMULATOR_HIDDEN uint32_t cluster_rank();
EMULATOR_HIDDEN void cluster_sync(bool release, Site site);

// ---- the rest of the core
EMULATOR_HIDDEN void yield();
EMULATOR_HIDDEN void fail(const char* format, ...) __attribute__((format(printf, 1, 2), noreturn));
EMULATOR_HIDDEN void fail_at(Site site, const char* message) __attribute__((noreturn));
EMULATOR_HIDDEN void atomic(void* address, int bytes, void (*update)(void* address, void* argument),
                            void* argument);
EMULATOR_HIDDEN uint32_t shared_offset(const void* address);

// ---- asynchronous copies of one thread (cp.async)
EMULATOR_HIDDEN void copy_async(void* shared, const void* global, int bytes, int source_bytes,
                                const void* pc);
EMULATOR_HIDDEN void copy_async_commit();
EMULATOR_HIDDEN void copy_async_wait(int groups_left);  // below 0: everything, committed or not

// ---- tensor cores of a warp
struct MmaOperands {
  void* d;
  const void* a;
  const void* b;
};
struct MatrixOperands {  // of ldmatrix and stmatrix
  uint32_t* registers;
  void* row;
  int matrices;
};
EMULATOR_HIDDEN void mma_tf32(void** operations, uint32_t mask);
EMULATOR_HIDDEN void mma_bf16(void** operations, uint32_t mask);
EMULATOR_HIDDEN void mma_f16(void** operations, uint32_t mask);
EMULATOR_HIDDEN void mma_f64(void** operations, uint32_t mask);
EMULATOR_HIDDEN void mma_f64_large(void** operations, uint32_t mask);
EMULATOR_HIDDEN void ldmatrix(void** operations, uint32_t mask);
EMULATOR_HIDDEN void ldmatrix_transposed(void** operations, uint32_t mask);
EMULATOR_HIDDEN void stmatrix(void** operations, uint32_t mask);
EMULATOR_HIDDEN void stmatrix_transposed(void** operations, uint32_t mask);

// ---- Hopper: transaction barriers, bulk copies, warpgroup products
EMULATOR_HIDDEN void fence_async_proxy();  // earlier writes become visible to copies and wgmma
EMULATOR_HIDDEN void fence_mbarrier_init();  // earlier initialisations become visible to copies
EMULATOR_HIDDEN void mbarrier_init(uint64_t* barrier, uint32_t count, Site site);
EMULATOR_HIDDEN void mbarrier_arrive(uint64_t* barrier, uint32_t expected_bytes, Site site);
EMULATOR_HIDDEN void mbarrier_arrive_in_cluster(uint64_t* barrier, uint32_t rank, Site site);
EMULATOR_HIDDEN void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site site);
constexpr uint32_t MAX_TENSOR_RANK = 4;
struct TensorCoordinates {  // of the first element of a box, innermost dimension first
  uint32_t rank;
  int index[MAX_TENSOR_RANK];
};
EMULATOR_HIDDEN void bulk_copy(void* shared, const void* tensor_map, TensorCoordinates corner,
                               uint64_t* barrier, Site site);
EMULATOR_HIDDEN void multicast_copy(void* shared, const void* tensor_map,
                                    TensorCoordinates corner, uint64_t* barrier, uint32_t mask,
                                    Site site);  // into every block of the cluster in the mask
EMULATOR_HIDDEN void prefetch_tensor_map(const void* tensor_map, Site site);
enum class WgmmaType { TF32, BF16, F16 };
struct WgmmaOperands {
  float* d;
  int columns;
  uint64_t a, b;               // descriptors of shared memory
  const uint32_t* a_registers;  // if not null, the operand instead of a
  WgmmaType type;
  bool a_transposed, b_transposed;  // MN-major instead of K-major (16-bit types only)
  bool accumulate;
};
EMULATOR_HIDDEN void wgmma_fence();
EMULATOR_HIDDEN void wgmma(const WgmmaOperands& operands, Site site);
EMULATOR_HIDDEN void wgmma_commit();
EMULATOR_HIDDEN void wgmma_wait(int groups_left, Site site);
EMULATOR_HIDDEN void set_max_registers(int count, bool more, Site site);

}  // namespace emulator
