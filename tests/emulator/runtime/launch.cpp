// A launch: clusters run one after another, in this process or in workers that share them.
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "barriers.h"
#include "bulk_copies.h"
#include "checker.h"
#include "clusters.h"
#include "failures.h"
#include "fibers.h"
#include "mbarriers.h"
#include "register_pools.h"
#include "scheduler.h"
#include "watchdog.h"
#include "wavefronts.h"

emulator::Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

uint32_t shared_offset(const void* address) {
  return uint32_t(static_cast<const char*>(address) - shared_memory.begin);
}

constexpr uint8_t POISON = 0xff;          // a NaN in every floating-point type
constexpr uint64_t POISON_BEYOND = 4096;  // bytes behind the dynamic shared memory

static uint64_t poisoned_dynamic_bytes() {
  const auto capacity = uint64_t(dynamic_memory.end - dynamic_memory.begin);
  return std::min(capacity, launch->dynamic_bytes + POISON_BEYOND);
}

static void require_untouched_poison() {
  for (uint64_t i = launch->dynamic_bytes; i < poisoned_dynamic_bytes(); i++) {
    if (uint8_t(dynamic_memory.begin[i]) == POISON) continue;
    fail_with({nullptr, 0, dynamic_memory.begin + i},
              "out-of-bounds write, the launch gave %u bytes", launch->dynamic_bytes);
  }
}

static void poison_shared_memory() {
  memset(shared_memory.begin, POISON, size_t(dynamic_memory.begin - shared_memory.begin));
  memset(dynamic_memory.begin, POISON, poisoned_dynamic_bytes());
}

// The last is the first, which has the memory that the loader made.
template <class Action>
static void in_each_block(Action action) {
  for (uint32_t rank = cluster_size; rank-- > 0;) {
    enter_block(blocks[rank]);
    action();
  }
}

static void run_cluster(uint64_t number) {
  place_cluster(uint32_t(number));
  in_each_block(poison_shared_memory);
  seed_random(number);
  reset_barriers();
  forget_bulk_copies();
  forget_mbarriers();
  reset_register_pools();
  start_threads();
  if (checking) reset_shadow_of_cluster();
  run_threads();
  enter_block(blocks[0]);
  count_partial_requests();
  if (!checking) in_each_block(require_untouched_poison);
}

// The order of clusters follows the schedule as the order of threads does.
static uint64_t cluster_at(uint64_t turn, uint64_t clusters) {
  if (launch->schedule == Schedule::ASCENDING) return turn;
  if (launch->schedule == Schedule::DESCENDING) return clusters - 1 - turn;
  seed_random(clusters);
  const uint64_t start = random_number() % clusters;
  uint64_t step = random_number() % clusters + 1;
  while (std::gcd(step, clusters) != 1) step++;
  return (start + turn * step) % clusters;
}

static void record(const char* format, ...) __attribute__((format(printf, 1, 2)));
static void record(const char* format, ...) {
  Failure& failure = shared_state->failure;
  if (failure.occurred) return;
  failure.occurred = 1;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure.message, sizeof failure.message, format, arguments);
  va_end(arguments);
}

static void record_timeout() {
  record("not finished after %u s (an endless loop?)", launch->timeout_seconds);
}

static void run_clusters(uint64_t clusters) {
  checking = launch->checked != 0;
  catch_signals();
  while (!shared_state->failure.occurred) {
    const uint64_t turn = __atomic_fetch_add(&shared_state->next_cluster, 1u, __ATOMIC_RELAXED);
    if (turn >= clusters) break;
    run_cluster(cluster_at(turn, clusters));
    if (deadline_passed) record_timeout();
  }
}

// The checker looks at an access before it is made, so that a checked kernel can do no harm.
static void run_here(uint64_t clusters) {
  isolated = false;
  start_watchdog();
  run_clusters(clusters);
  stop_watchdog();
  release_signals();
  checking = false;
  current = nullptr;
}

[[noreturn]] static void run_worker(uint64_t clusters) {
  isolated = true;
  run_clusters(clusters);
  fflush(stdout);  // what kernels printed
  _exit(0);
}

// ---- the module's own memory

struct ModuleSearch {
  char* inside;
  uint64_t number;  // of the module's thread-local block
  Range image, thread_local_block;
};

static int visit_module(dl_phdr_info* info, size_t, void* argument) {
  auto& search = *static_cast<ModuleSearch*>(argument);
  Range image{reinterpret_cast<char*>(UINTPTR_MAX), nullptr};
  size_t thread_local_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_TLS) thread_local_bytes = header.p_memsz;
    if (header.p_type != PT_LOAD) continue;
    char* begin = reinterpret_cast<char*>(info->dlpi_addr + header.p_vaddr);
    image.begin = std::min(image.begin, begin);
    image.end = std::max(image.end, begin + header.p_memsz);
  }
  if (search.inside < image.begin || search.inside >= image.end) return 0;
  search.image = image;
  search.number = info->dlpi_tls_modid;
  search.thread_local_block.begin = static_cast<char*>(info->dlpi_tls_data);
  search.thread_local_block.end = search.thread_local_block.begin + thread_local_bytes;
  return 1;
}

static bool find_module_memory(char* dynamic, uint32_t dynamic_capacity, uint64_t* number) {
  ModuleSearch search{reinterpret_cast<char*>(kernel_entry), 0, {}, {}};
  dl_iterate_phdr(visit_module, &search);
  *number = search.number;
  module_image = search.image;
  shared_memory = search.thread_local_block;
  dynamic_memory = Range{shared_memory.end, shared_memory.end};
  if (dynamic) dynamic_memory = Range{dynamic, dynamic + dynamic_capacity};
  return dynamic_memory.end == shared_memory.end;
}

// ---- workers

static double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

static void stop(std::vector<pid_t>& workers) {
  for (pid_t worker : workers) kill(worker, SIGKILL);
  for (pid_t worker : workers) waitpid(worker, nullptr, 0);
  workers.clear();
}

static void wait_for_workers(std::vector<pid_t>& workers) {
  const double deadline = now() + launch->timeout_seconds;
  while (!workers.empty()) {
    for (size_t i = 0; i < workers.size();) {
      int status;
      if (waitpid(workers[i], &status, WNOHANG) != workers[i]) {
        i++;
        continue;
      }
      workers.erase(workers.begin() + long(i));
      if (status) {
        record("a worker ended with status %x", unsigned(status));
        return stop(workers);
      }
    }
    if (launch->timeout_seconds && now() > deadline) {
      record_timeout();
      return stop(workers);
    }
    if (!workers.empty()) usleep(50);
  }
}

static void run_in_workers(uint64_t clusters) {
  std::vector<pid_t> workers;
  const uint64_t count = std::min<uint64_t>(std::max(1u, launch->workers), clusters);
  for (uint64_t i = 0; i < count; i++) {
    const pid_t worker = fork();
    if (worker == 0) run_worker(clusters);
    if (worker < 0) {
      record("fork failed");
      return stop(workers);
    }
    workers.push_back(worker);
  }
  wait_for_workers(workers);
}

static void run_grid(uint64_t clusters) {
  std::vector<Thread> of_cluster(cluster_threads);
  threads = of_cluster.data();
  lay_out_stacks();
  if (launch->checked) map_shadow_memory();
  if (launch->checked && launch->workers <= 1) {
    run_here(clusters);
  } else {
    run_in_workers(clusters);
  }
  if (launch->checked) unmap_shadow_memory();
}

static bool launch_is_valid(uint64_t blocks, uint32_t dynamic_capacity) {
  if (!thread_count || thread_count > MAX_THREADS || !blocks || blocks > UINT32_MAX) {
    record("invalid launch: %llu blocks of %u threads", static_cast<unsigned long long>(blocks),
           thread_count);
    return false;
  }
  if (launch->dynamic_bytes > dynamic_capacity) {
    record("%u bytes of dynamic shared memory are asked for, %u are possible",
           launch->dynamic_bytes, dynamic_capacity);
    return false;
  }
  return true;
}

}  // namespace emulator

// For the caller to compare with its own idea of the structures that both sides fill.
EMULATOR_API void emulator_structure_sizes(uint64_t* sizes) {
  sizes[0] = sizeof(emulator::Buffer);
  sizes[1] = sizeof(emulator::SharedVariable);
  sizes[2] = sizeof(emulator::Configuration);
  sizes[3] = sizeof(emulator::Failure);
  sizes[4] = sizeof(emulator::SharedRequests);
}

// Returns 1 and fills `failure` if the launch failed. `counts`: switches, checked accesses.
EMULATOR_API int emulator_launch(void (*entry)(void**),
                                 const emulator::Configuration* configuration, void** arguments,
                                 char* dynamic, uint32_t dynamic_capacity,
                                 emulator::Failure* failure, uint64_t* counts) {
  using namespace emulator;
  launch = configuration;
  kernel_entry = entry;
  kernel_arguments = arguments;
  gridDim = Dim3{launch->grid[0], launch->grid[1], launch->grid[2]};
  blockDim = Dim3{launch->block[0], launch->block[1], launch->block[2]};
  thread_count = blockDim.x * blockDim.y * blockDim.z;
  lay_out_clusters();
  forget_requests();
  const uint64_t blocks = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
  shared_state = static_cast<SharedState*>(mmap(nullptr, sizeof(SharedState),
                                                PROT_READ | PROT_WRITE,
                                                MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  uint64_t module_number;
  if (!find_module_memory(dynamic, dynamic_capacity, &module_number)) {
    record("dynamic shared memory is not the end of the thread-local block");
  } else if (!map_thread_local_blocks(module_number)) {
    record("no shared memory for a cluster of %u blocks", cluster_size);
  } else if (launch_is_valid(blocks, dynamic_capacity)) {
    run_grid(blocks / cluster_size);
  }
  unmap_thread_local_blocks();
  *failure = shared_state->failure;
  counts[0] = shared_state->switches;
  counts[1] = shared_state->accesses;
  munmap(shared_state, sizeof(SharedState));
  return failure->occurred;
}
