// Memory for arguments: ends at a guard page, and canaries fill what lies between.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "state.h"

namespace {

constexpr uint64_t PAGE = 4096;
constexpr uint8_t CANARY = 0xA5;

uint64_t body_bytes(uint64_t bytes) { return (bytes + 16 + PAGE - 1) / PAGE * PAGE; }

struct Body {
  char* begin;
  char* end;
};

Body body_of(char* buffer, uint64_t bytes) {
  const uint64_t last = emulator::address_of(buffer) + bytes;
  char* end = buffer + bytes + ((last + PAGE - 1) / PAGE * PAGE - last);
  return Body{end - body_bytes(bytes), end};
}

}  // namespace

// The start has the given remainder modulo 16, as the caller's array has.
EMULATOR_API char* emulator_allocate(uint64_t bytes, uint32_t remainder) {
  const uint64_t body = body_bytes(bytes);
  // Shared, so that what the workers write comes back.
  void* memory = mmap(nullptr, body + 2 * PAGE, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(memory) + PAGE;
  char* end = begin + body;
  mprotect(memory, PAGE, PROT_NONE);
  mprotect(end, PAGE, PROT_NONE);
  char* buffer = end - bytes;
  while (emulator::address_of(buffer) % 16 != remainder) buffer--;
  memset(begin, CANARY, uint64_t(buffer - begin));
  memset(buffer + bytes, CANARY, uint64_t(end - buffer) - bytes);
  return buffer;
}

// Returns 0 if something was written just outside of the buffer.
EMULATOR_API int emulator_is_intact(char* buffer, uint64_t bytes) {
  const Body body = body_of(buffer, bytes);
  const auto intact = [](const char* begin, const char* end) {
    return std::all_of(begin, end, [](char byte) { return uint8_t(byte) == CANARY; });
  };
  return intact(body.begin, buffer) && intact(buffer + bytes, body.end);
}

EMULATOR_API void emulator_release(char* buffer, uint64_t bytes) {
  munmap(body_of(buffer, bytes).begin - PAGE, body_bytes(bytes) + 2 * PAGE);
}
