// Device memory in the host's: addresses that the host cannot touch, values that kernels find.
#include <sys/mman.h>

#include <cstring>

#include "state.h"

namespace driver {
namespace {

constexpr size_t PAGE = 4096;
constexpr int POISON = 0xFF;  // of new memory: a NaN in every floating-point type

std::map<uint64_t, Allocation> allocations;  // by first address
std::vector<std::pair<uint64_t, Kind>> to_release;
std::map<uint64_t, uint64_t> reserved;       // all that ever was device memory: first, beyond last

size_t pages(size_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

// The allocation that holds all of [address, address + size), or nullptr.
const Allocation *holder(uint64_t address, size_t size) {
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  const Allocation &found = std::prev(next)->second;
  return address + size <= found.address + found.size ? &found : nullptr;
}

// Is or was this device memory?
bool is_reserved(uint64_t address) {
  auto next = reserved.upper_bound(address);
  return next != reserved.begin() && address < std::prev(next)->second;
}

const char *direction(int kind) {
  static const char *names[] = {"HostToHost", "HostToDevice", "DeviceToHost", "DeviceToDevice",
                                "Default"};
  return kind >= 0 && kind <= 4 ? names[kind] : "unknown";
}

bool on_device(uint64_t address) {
  Allocation found;
  if (find(address, &found)) return found.kind == Kind::device;
  Guard guard(state);
  return is_reserved(address);
}

int check_range(const char *what, uint64_t address, size_t size) {
  if (bytes_at(address, size)) return SUCCESS;
  return refuse(INVALID_VALUE, "%s: %zu bytes at %#llx are not all within one allocation", what,
                size, (unsigned long long)address);
}

}  // namespace

int allocate(size_t size, Kind kind, uint64_t *address) {
  *address = 0;
  if (int failed = forbidden_by_captures("an allocation")) return failed;
  if (size == 0) return SUCCESS;
  Guard guard(state);
  Device &device = devices[current_device()];
  if (kind == Kind::device && device.used + size > device_memory)
    return refuse(OUT_OF_MEMORY, "%zu bytes are asked for, %zu of %zu are in use", size,
                  device.used, device_memory);
  auto map = [](size_t bytes, int protection) {
    return mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void *bytes = map(pages(size), PROT_READ | PROT_WRITE);
  if (bytes == MAP_FAILED) return refuse(OUT_OF_MEMORY, "the host has no %zu bytes", size);
  memset(bytes, POISON, size);
  uint64_t start = (uint64_t)bytes;
  if (kind == Kind::device) {
    // A guard page on each side, so that allocations never adjoin; the addresses are
    // never given again, so that use after free shows.
    void *place = map(pages(size) + 2 * PAGE, PROT_NONE);
    if (place == MAP_FAILED) {
      munmap(bytes, pages(size));
      return refuse(OUT_OF_MEMORY, "the host has no %zu addresses", size);
    }
    start = (uint64_t)place + PAGE;
    reserved[(uint64_t)place] = start + pages(size) + PAGE;
    device.used += size;
  }
  allocations[start] = {start, size, kind, current_device(), (char *)bytes};
  *address = start;
  return SUCCESS;
}

void release_later() {
  std::vector<std::pair<uint64_t, Kind>> waiting;
  {
    Guard guard(state);
    waiting.swap(to_release);
  }
  for (auto [address, kind] : waiting) release(address, kind);
}

int release(uint64_t address, Kind kind) {
  if (address == 0) return SUCCESS;
  if (within_work) {
    Guard guard(state);
    to_release.push_back({address, kind});
    return SUCCESS;
  }
  if (int failed = forbidden_by_captures("giving memory back")) return failed;
  Allocation known;
  if (!find(address, &known) || known.address != address || known.kind != kind)
    return refuse(INVALID_VALUE, "free: no allocation begins at %#llx",
                  (unsigned long long)address);
  for (int device = 0; device < device_count; ++device) {  // as cudaFree does
    int before = current_device();
    set_current_device(device);
    int failed = synchronize_device();
    set_current_device(before);
    if (failed) return failed;
  }
  Guard guard(state);
  auto at = allocations.find(address);
  if (at == allocations.end()) return refuse(INVALID_VALUE, "free: twice");
  munmap(at->second.bytes, pages(at->second.size));
  if (kind == Kind::device) devices[at->second.device].used -= at->second.size;
  allocations.erase(at);
  return SUCCESS;
}

bool find(uint64_t address, Allocation *found) {
  Guard guard(state);
  const Allocation *known = holder(address, 1);
  if (known) *found = *known;
  return known != nullptr;
}

char *bytes_at(uint64_t address, size_t size) {
  Guard guard(state);
  if (const Allocation *known = holder(address, size))
    return known->bytes + (address - known->address);
  return is_reserved(address) ? nullptr : (char *)address;
}

int copy(uint64_t to, uint64_t from, size_t size, int kind, uint64_t stream, bool wait) {
  if (wait)
    if (int failed = forbidden_by_captures("a copy that waits")) return failed;
  if (size == 0) return SUCCESS;
  bool to_device = on_device(to), from_device = on_device(from);
  int found = (from_device ? 2 : 0) + (to_device ? 1 : 0);
  if (kind != 4 && kind != found)
    return refuse(INVALID_VALUE, "memcpy%s of what is memcpy%s", direction(kind),
                  direction(found));
  if (int failed = check_range("memcpy to", to, size)) return failed;
  if (int failed = check_range("memcpy from", from, size)) return failed;
  Allocation known;
  bool pageable_source = !find(from, &known), pageable_target = !find(to, &known);
  auto values = std::make_shared<std::vector<char>>();
  Stream *target = find_stream(stream);
  bool captured = target && target->capture;
  if (pageable_source && !captured)  // the driver has read it when the call returns
    values->assign((char *)from, (char *)from + size);
  auto work = [=]() -> int {
    char *target = bytes_at(to, size);
    const char *source = values->empty() ? bytes_at(from, size) : values->data();
    if (!target || !source)
      return refuse(ILLEGAL_ADDRESS, "memcpyAsync: memory was given back before it was copied");
    memmove(target, source, size);
    return SUCCESS;
  };
  OperationPtr operation;
  if (int failed = submit(stream, "memcpy", work, &operation)) return failed;
  // Into memory that is not pinned the driver copies before the call returns.
  return operation && (wait || pageable_target) ? complete(operation) : SUCCESS;
}

int fill(uint64_t to, int value, size_t size, uint64_t stream) {
  if (size == 0) return SUCCESS;
  if (!on_device(to)) return refuse(INVALID_VALUE, "memset of what is no device memory");
  if (int failed = check_range("memset", to, size)) return failed;
  auto work = [=]() -> int {
    char *target = bytes_at(to, size);
    if (!target) return refuse(ILLEGAL_ADDRESS, "memset: memory was given back before");
    memset(target, value, size);
    return SUCCESS;
  };
  return submit(stream, "memset", work);
}

}  // namespace driver
