// Each block of a cluster has a copy of the module's thread-local block. Compiled code asks
// __tls_get_addr where that of the running thread is, which looks it up in a vector that the C
// library keeps for each thread (x86-64: %fs:8 points to it, 16 bytes a module, the address first).
// All fibers are one thread to the C library: the entry changes when one of another block runs.
#include <sys/mman.h>

#include "clusters.h"

namespace emulator {

static uint64_t module_number;
static char* copies;  // all but the first block's, which has what the loader made
static size_t copy_bytes;

// Looked up every time: the vector moves when some thread of the process loads a library.
static char*& entry() {
  char** vector;
  asm("movq %%fs:8, %0" : "=r"(vector));
  return vector[2 * module_number];
}

void use_thread_local_block(const Range& memory) {
  if (cluster_size > 1) entry() = memory.begin;
}

bool map_thread_local_blocks(uint64_t number) {
  constexpr size_t PAGE = 4096;
  const auto bytes = size_t(shared_memory.end - shared_memory.begin);
  const auto dynamic_bytes = size_t(dynamic_memory.end - dynamic_memory.begin);
  module_number = number;
  copy_bytes = (bytes + PAGE - 1) / PAGE * PAGE;
  blocks[0].shared_memory = shared_memory;
  if (cluster_size > 1) {
    if (entry() != shared_memory.begin) return false;
    void* memory = mmap(nullptr, copy_bytes * (cluster_size - 1), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    copies = static_cast<char*>(memory);
  }
  for (uint32_t i = 0; i < cluster_size; i++) {
    if (i > 0) {
      char* begin = copies + copy_bytes * (i - 1);
      blocks[i].shared_memory = Range{begin, begin + bytes};
    }
    char* end = blocks[i].shared_memory.end;
    blocks[i].dynamic_memory = Range{end - dynamic_bytes, end};
  }
  return true;
}

void unmap_thread_local_blocks() {
  if (copies) munmap(copies, copy_bytes * (cluster_size - 1));
  copies = nullptr;
}

}  // namespace emulator
