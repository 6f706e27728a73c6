// What g++ -fsanitize=thread calls at every memory access. libtsan itself is not linked.
#include "checker.h"
#include "wavefronts.h"

using emulator::Access;
using emulator::RequestKind;

static inline void count(const void* address, long bytes, Access access, const void* pc) {
  const auto kind = access == Access::READ ? RequestKind::LOAD : RequestKind::STORE;
  emulator::count_access(kind, address, uint32_t(bytes), pc);
}

static inline void check(const void* address, int bytes, Access access, const void* pc) {
  if (!emulator::checking) return;
  emulator::check_access(address, bytes, access, pc);
  count(address, bytes, access, pc);
}

static void check_range(const char* address, long bytes, Access access, const void* pc) {
  if (!emulator::checking) return;
  constexpr long STEP = 4;
  for (long i = 0; i < bytes; i += STEP) {
    const long rest = bytes - i;
    if (rest >= STEP) {
      emulator::check_access(address + i, STEP, access, pc);
    } else {
      for (long j = 0; j < rest; j++) emulator::check_access(address + i + j, 1, access, pc);
    }
  }
  count(address, bytes, access, pc);
}

#define HOOKS(BYTES)                                                        \
  EMULATOR_API void __tsan_read##BYTES(void* address) {                     \
    check(address, BYTES, Access::READ, __builtin_return_address(0));       \
  }                                                                         \
  EMULATOR_API void __tsan_write##BYTES(void* address) {                    \
    check(address, BYTES, Access::WRITE, __builtin_return_address(0));      \
  }                                                                         \
  EMULATOR_API void __tsan_unaligned_read##BYTES(void* address) {           \
    check(address, BYTES, Access::READ, __builtin_return_address(0));       \
  }                                                                         \
  EMULATOR_API void __tsan_unaligned_write##BYTES(void* address) {          \
    check(address, BYTES, Access::WRITE, __builtin_return_address(0));      \
  }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

EMULATOR_API void __tsan_read_range(void* address, long bytes) {
  check_range(static_cast<char*>(address), bytes, Access::READ, __builtin_return_address(0));
}
EMULATOR_API void __tsan_write_range(void* address, long bytes) {
  check_range(static_cast<char*>(address), bytes, Access::WRITE, __builtin_return_address(0));
}

EMULATOR_API void __tsan_init() {}
EMULATOR_API void __tsan_func_entry(void*) {}
EMULATOR_API void __tsan_func_exit() {}
EMULATOR_API void __tsan_vptr_update(void**, void*) {}
EMULATOR_API void __tsan_vptr_read(void**) {}
