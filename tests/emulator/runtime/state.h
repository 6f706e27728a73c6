// One launch: its configuration and failure (laid out as in structures.py), its threads.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "../device/runtime_calls.h"

#define EMULATOR_API extern "C" __attribute__((visibility("default")))

namespace emulator {

struct Dim3 {
  uint32_t x, y, z;
};

}  // namespace emulator

extern "C" EMULATOR_HIDDEN emulator::Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr uint32_t MAX_THREADS = 1024;
constexpr uint32_t WARP = 32;
constexpr uint32_t MAX_WARPS = MAX_THREADS / WARP;
constexpr uint32_t WARPGROUP = 128;
constexpr uint32_t MAX_CLUSTER = 8;  // blocks
constexpr uint32_t MAX_CLUSTER_THREADS = MAX_CLUSTER * MAX_THREADS;

// ---- configuration, filled by the caller

struct Buffer {  // the memory of one argument, or of several that overlap
  uint64_t base, bytes;
  const uint8_t* members;  // one a checked item: 0 if it belongs to no array; null: all belong
  uint32_t item_bytes;     // what the checker distinguishes
  uint32_t read_only;
  uint32_t uninitialised;  // items that still hold the poison byte were never written
  uint32_t poison;
};

struct SharedVariable {  // bytes from the start of the module's shared memory
  uint64_t offset, bytes;
  uint64_t is_guard;  // a guard variable that the compiler made
};

enum class Schedule : uint32_t { ASCENDING, DESCENDING, RANDOM };

enum class TensorArithmetic : uint32_t { EXACT, HOPPER, AMPERE };

struct Configuration {
  uint32_t grid[3], block[3];
  uint32_t cluster[3];  // blocks
  uint32_t dynamic_bytes;
  Schedule schedule;
  uint32_t seed, workers, checked, eager_copies, count_wavefronts, timeout_seconds;
  TensorArithmetic arithmetic;
  uint32_t registers;  // of each thread when the kernel starts; 0: not known
  char* stacks;          // of all threads of a cluster, without guard pages between them
  uint64_t stack_bytes;  // of each
  uint64_t buffer_count;
  const Buffer* buffers;
  uint64_t shared_variable_count;
  const SharedVariable* shared_variables;
};

// ---- failure, read by the caller

enum class Place : uint32_t { NONE, DYNAMIC_SHARED, STATIC_SHARED, ARGUMENT, ELSEWHERE };

struct Failure {
  int32_t occurred;
  uint32_t block[3], thread[3];
  Place place;
  uint32_t buffer;
  int64_t offset;         // bytes from the start of the place; ELSEWHERE: the address
  uint64_t pc, other_pc;  // return addresses relative to the module; 0: none
  char message[2000];
  char site_file[200];  // where there is no pc
  uint32_t site_line;
};

// ---- what shared memory was asked for, read by the caller

enum class RequestKind : uint32_t { LOAD, STORE, COPY, MATRIX_LOAD, MATRIX_STORE };

struct SharedRequests {  // of one place in the code: the pc, or where there is none the site
  uint64_t pc, requests, wavefronts;
  uint64_t ideal;  // wavefronts without bank conflicts
  RequestKind kind;
  uint32_t bytes;  // of each lane
  uint32_t site_line;
  char site_file[200];
};

struct SharedState {  // between the caller and the worker processes
  uint32_t next_cluster, atomic_lock;
  Failure failure;
  uint64_t switches, accesses;
};

// ---- threads

struct VectorClock {
  uint32_t references, capacity;
  uint32_t time[1];  // one a thread of the cluster
};

enum class State { NEW, READY, IN_COLLECTIVE, AT_BARRIER, AT_MBARRIER, AT_WGMMA_WAIT, AT_SETMAXNREG,
                   AT_REGISTERS, AT_CLUSTER_BARRIER, EXITED };

struct AsyncCopy {
  char* shared;
  const char* global;
  int bytes, source_bytes;
  const void* pc;
};

struct WgmmaProduct {
  WgmmaOperands operands;
  uint32_t a_values[4];  // of the registers when it was issued
  Site site;
};

struct Accumulator {  // registers of products in flight
  float* registers;
  int columns, item_bytes;  // of the products' shape
  int products;
  float values[128];  // what they hold once the products that have ended are added
};

struct Block;

struct Thread {
  void* stack_pointer;
  char* stack;
  Dim3 index;
  uint32_t id;  // in the cluster
  Block* block;
  State state;
  Site site;  // of the runtime call that the thread is in
  // in a warp collective
  uint32_t mask;
  Collective collective;
  void* operation;
  // the checker's view: this thread's own time, and what it knows of the others'
  uint32_t time;
  VectorClock* knows;
  uint32_t fenced_time;  // writes up to then are visible to copies and wgmma
  uint32_t init_fenced_time;  // initialisations of mbarriers up to then
  // operations that were issued and not yet waited for; groups hold counts, oldest first
  std::vector<AsyncCopy> copies;
  std::vector<int> copy_groups;
  std::vector<WgmmaProduct> products;
  std::vector<int> product_groups;
  std::vector<Accumulator> accumulators;
  bool products_fenced;  // wgmma.fence since the last wait
  int groups_left;       // that it waits for
  // in setmaxnreg
  int register_count;
  bool register_increase;
  // on an mbarrier, until it has seen the end of the phase
  uint64_t* mbarrier;
  uint32_t parity;
};

inline Thread* threads;           // of a cluster
inline uint32_t thread_count;     // of a block
inline uint32_t cluster_threads;  // one more than the last id
inline Thread* current;

// ---- the launch

inline const Configuration* launch;
inline SharedState* shared_state;
inline bool checking;
inline bool isolated;  // in a process of its own, which a failure ends

struct Range {
  char* begin;
  char* end;
  bool holds(uint64_t address) const {
    return address - reinterpret_cast<uint64_t>(begin) < uint64_t(end - begin);
  }
};
inline Range module_image;    // code and constants
inline Range shared_memory;   // the module's thread-local block: every __shared__ variable
inline Range dynamic_memory;  // its last part: extern __shared__ arrays

// ---- blocks: those of a cluster run together

struct Cell;

struct Block {
  uint32_t rank;  // in the cluster
  Dim3 index;
  uint32_t first_thread;  // a multiple of WARPGROUP
  uint32_t live_threads;
  Range shared_memory, dynamic_memory;
  Cell* cells;
};
inline Block blocks[MAX_CLUSTER];
inline uint32_t cluster_size = 1;  // blocks
inline uint32_t cluster_number;
// Whose shared memory the variables above and the kernel's code mean: that of the current thread,
// except where the runtime works in another.
inline Block* current_block;

inline uint32_t id_in_block(const Thread& thread) {
  return thread.id - thread.block->first_thread;
}

inline void require_whole_warpgroup(const char* what) {  // of the current thread
  const uint32_t first = id_in_block(*current) / WARPGROUP * WARPGROUP;
  if (first + WARPGROUP > thread_count) fail("%s in a partial warpgroup,", what);
}

inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }
inline int in_groups(const std::vector<int>& groups, size_t count) {  // members of the oldest
  int sum = 0;
  for (size_t i = 0; i < count; i++) sum += groups[i];
  return sum;
}
inline uint32_t lane_bit(uint32_t lane) { return 1u << lane; }

}  // namespace emulator
