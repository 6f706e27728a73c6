// cp.async: a copy lands when its thread waits for it (or at once, if the launch asks for that).
#include <cstring>

#include "checker.h"
#include "failures.h"
#include "wavefronts.h"

namespace emulator {

static void write_copy(const AsyncCopy& copy) {
  memcpy(copy.shared, copy.global, copy.source_bytes);
  memset(copy.shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

static void check_copy(const AsyncCopy& copy) {
  const uint64_t destination = address_of(copy.shared), source = address_of(copy.global);
  if (destination % copy.bytes) {
    fail_with({copy.pc, 0, copy.shared}, "cp.async of %d bytes: misaligned shared destination",
              copy.bytes);
  }
  if (source % copy.bytes) {  // also where nothing is read
    fail_with({copy.pc, 0, copy.global}, "cp.async of %d bytes: misaligned global source",
              copy.bytes);
  }
  if (!shared_memory.holds(destination)) {
    fail_with({copy.pc, 0, copy.shared}, "cp.async: the destination is not in shared memory");
  }
  if (dynamic_memory.holds(destination) &&
      copy.shared + copy.bytes > dynamic_memory.begin + launch->dynamic_bytes) {
    fail_with({copy.pc, 0, copy.shared},
              "out-of-bounds asynchronous write of %d bytes, the launch gave %u bytes", copy.bytes,
              launch->dynamic_bytes);
  }
  if (copy.source_bytes) check_global_read(copy.global, copy.source_bytes, copy.pc);
}

void copy_async(void* shared, const void* global, int bytes, int source_bytes, const void* pc) {
  const AsyncCopy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes,
                       source_bytes, pc};
  check_copy(copy);
  count_access(RequestKind::COPY, shared, uint32_t(bytes), pc);
  if (checking) {
    if (source_bytes) check_access(global, source_bytes, Access::READ, pc);
    check_access(shared, bytes, Access::START_COPY, pc);
  }
  if (launch->eager_copies) write_copy(copy);
  current->copies.push_back(copy);
}

void copy_async_commit() {
  auto& groups = current->copy_groups;
  groups.push_back(int(current->copies.size()) - in_groups(groups, groups.size()));
}

void copy_async_wait(int groups_left) {
  auto& groups = current->copy_groups;
  auto& copies = current->copies;
  const bool everything = groups_left < 0;
  const size_t keep = everything ? 0 : size_t(groups_left);
  const size_t finished = groups.size() > keep ? groups.size() - keep : 0;
  const size_t landed = everything ? copies.size() : size_t(in_groups(groups, finished));
  for (size_t i = 0; i < landed; i++) {
    write_copy(copies[i]);
    if (checking) {
      check_access(copies[i].shared, copies[i].bytes, Access::END_COPY, copies[i].pc);
    }
  }
  copies.erase(copies.begin(), copies.begin() + long(landed));
  groups.erase(groups.begin(), groups.begin() + long(finished));
}

}  // namespace emulator
