// Devices, contexts, and what every call does first.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <deque>

#include "control.h"
#include "state.h"

namespace driver {

Device devices[MAX_DEVICES];
int device_count = 0;
size_t device_memory = 4ull << 30;
int compute_capability = 90;
bool peers_possible = true;

namespace {

thread_local int current = 0;
thread_local bool context = false;
std::atomic<bool> used{false}, forked{false};
std::deque<std::string> refusals;  // the latest last
std::mutex of_refusals;
constexpr size_t MAX_REFUSALS = 100;
int (*execute)(const LaunchRecord *) = nullptr;

std::vector<Counter *> &counters() {
  static auto *all = new std::vector<Counter *>;
  return *all;
}

void in_child() {
  if (used) forked = true;  // CUDA cannot be used any more where a parent process has used it
}

}  // namespace

Counter::Counter(const char *name) : name(name) {
  static std::mutex adding;
  std::lock_guard<std::mutex> guard(adding);
  counters().push_back(this);
}

int refuse(int status, const char *format, ...) {
  char text[2000];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::lock_guard<std::mutex> guard(of_refusals);
  refusals.push_back(text);
  if (refusals.size() > MAX_REFUSALS) refusals.pop_front();
  return status;
}

int enter(Counter &counter) {
  __atomic_add_fetch(&counter.calls, 1, __ATOMIC_RELAXED);
  if (forked) return NOT_INITIALIZED;
  if (current >= device_count) return device_count ? INVALID_DEVICE : NO_DEVICE;
  used = true;
  return devices[current].failure;
}

int enter_with_context(Counter &counter) {
  int failed = enter(counter);
  if (!failed) context = true;
  return failed;
}

int enter_to_release(Counter &counter) {
  __atomic_add_fetch(&counter.calls, 1, __ATOMIC_RELAXED);
  return forked ? NOT_INITIALIZED : SUCCESS;
}

int current_device() { return current; }

void set_current_device(int device) { current = device; }

bool has_context() { return context; }

void make_context() { context = true; }

int run_launch(const LaunchRecord &record) {
  return execute ? execute(&record) : SUCCESS;  // nothing is computed where only costs are measured
}

const char *name_of(int status) {
  switch (status) {
    case SUCCESS: return "SUCCESS";
    case INVALID_VALUE: return "INVALID_VALUE";
    case OUT_OF_MEMORY: return "OUT_OF_MEMORY";
    case NOT_INITIALIZED: return "NOT_INITIALIZED";
    case NO_DEVICE: return "NO_DEVICE";
    case INVALID_DEVICE: return "INVALID_DEVICE";
    case INVALID_IMAGE: return "INVALID_IMAGE";
    case INVALID_CONTEXT: return "INVALID_CONTEXT";
    case NO_BINARY_FOR_GPU: return "NO_BINARY_FOR_GPU";
    case FILE_NOT_FOUND: return "FILE_NOT_FOUND";
    case INVALID_HANDLE: return "INVALID_HANDLE";
    case ILLEGAL_STATE: return "ILLEGAL_STATE";
    case NOT_FOUND: return "NOT_FOUND";
    case NOT_READY: return "NOT_READY";
    case ILLEGAL_ADDRESS: return "ILLEGAL_ADDRESS";
    case LAUNCH_OUT_OF_RESOURCES: return "LAUNCH_OUT_OF_RESOURCES";
    case PEER_ACCESS_ALREADY_ENABLED: return "PEER_ACCESS_ALREADY_ENABLED";
    case LAUNCH_FAILED: return "LAUNCH_FAILED";
    case NOT_SUPPORTED: return "NOT_SUPPORTED";
    case CAPTURE_UNSUPPORTED: return "STREAM_CAPTURE_UNSUPPORTED";
    case CAPTURE_INVALIDATED: return "STREAM_CAPTURE_INVALIDATED";
    case CAPTURE_MERGE: return "STREAM_CAPTURE_MERGE";
    case CAPTURE_UNMATCHED: return "STREAM_CAPTURE_UNMATCHED";
    case CAPTURE_UNJOINED: return "STREAM_CAPTURE_UNJOINED";
    case CAPTURE_ISOLATION: return "STREAM_CAPTURE_ISOLATION";
    case CAPTURE_IMPLICIT: return "STREAM_CAPTURE_IMPLICIT";
    case CAPTURED_EVENT: return "CAPTURED_EVENT";
    case CAPTURE_WRONG_THREAD: return "STREAM_CAPTURE_WRONG_THREAD";
    case INVALID_CLUSTER_SIZE: return "INVALID_CLUSTER_SIZE";
    default: return "UNKNOWN";
  }
}

}  // namespace driver

using namespace driver;

extern "C" {

void played_start(int (*run)(const LaunchRecord *)) {
  static bool once = [] { return pthread_atfork(nullptr, nullptr, in_child), true; }();
  (void)once;
  execute = run;
}

// Python is about to end: nothing calls it any more.
void played_stop() {
  std::lock_guard<std::mutex> alone(execution);
  execute = nullptr;
}

void played_devices(int count, int capability, uint64_t memory, int peers) {
  Guard guard(state);
  device_count = count;
  compute_capability = capability;
  device_memory = memory;
  peers_possible = peers;
}

void played_order(int which, uint64_t seed) {
  Guard guard(state);
  policy = (Policy)which;
  seed_order(seed);
}

// Does all that waits, and returns the first failure.
int played_finish() {
  int found = SUCCESS, before = current_device();
  for (int device = 0; device < device_count; ++device) {
    set_current_device(device);
    int failed = synchronize_device();
    if (!found) found = failed;
  }
  set_current_device(before);
  return found;
}

// Makes a lost context whole again, which only a new process does on a GPU; ends all captures.
void played_recover() {
  abandon_captures();
  for (Device &device : devices) device.failure = 0;
}

void played_refuse(const char *text) { refuse(LAUNCH_FAILED, "%s", text); }

// Writes the sentences that say why calls failed, a line each, and forgets them.
int played_refusals(char *text, int size) {
  std::lock_guard<std::mutex> guard(of_refusals);
  std::string all;
  for (auto &one : refusals) all += one + "\n";
  if ((int)all.size() + 1 > size) return (int)all.size() + 1;
  refusals.clear();
  snprintf(text, (size_t)size, "%s", all.c_str());
  return 0;
}

// Visits the number of calls of each entry point.
void played_calls(void (*visit)(const char *, uint64_t)) {
  for (Counter *counter : counters())
    if (counter->calls) visit(counter->name, counter->calls);
}

// Finds the allocation that an address is in, if a kernel on a device may use it.
int played_find(uint64_t address, int device, uint64_t *start, uint64_t *size, uint64_t *bytes) {
  Allocation found;
  if (!find(address, &found)) return 0;
  Guard guard(state);
  bool reachable = found.kind == Kind::pinned || found.device == device ||
                   devices[device].peers.count(found.device);
  if (!reachable) return 0;
  *start = found.address;
  *size = found.size;
  *bytes = (uint64_t)found.bytes;
  return 1;
}
}
