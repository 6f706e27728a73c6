// What the driver knows: devices, memory, and the work that waits in streams.
//
// Two locks. `state` guards every structure here and is held for moments only, never while a
// kernel runs or Python's global lock is waited for. `execution` is held by the one thread that
// completes work; it is taken before `state`, and never with Python's global lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "status.h"

namespace driver {

extern std::mutex state;
extern std::mutex execution;
extern thread_local bool within_work;  // does this thread carry out an operation?
using Guard = std::lock_guard<std::mutex>;

// ---- failures

// Keeps a sentence that says why a call fails, for tests and their reports; returns the status.
int refuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// ---- devices

constexpr int MAX_DEVICES = 8;
constexpr uint32_t MAX_SHARED = 227 << 10;     // bytes of a block, with opt-in
constexpr uint32_t DEFAULT_SHARED = 48 << 10;  // without

struct Stream;

struct Device {
  int failure = 0;           // once a kernel has failed, the result of every later call
  std::set<int> peers;       // whose memory its kernels may use
  size_t used = 0;           // bytes
  Stream *legacy = nullptr;  // the default stream
};

extern Device devices[MAX_DEVICES];
extern int device_count;       // 0: the machine looks as if it had no GPU
extern size_t device_memory;   // bytes that may be allocated on each
extern int compute_capability; // such as 90
extern bool peers_possible;

int current_device();
void set_current_device(int device);  // and makes its context current
bool has_context();                   // has this thread one that is current?
void make_context();

// ---- memory

enum class Kind { device, pinned };

struct Allocation {
  uint64_t address;  // what callers see; of device memory the host can neither read nor write it
  size_t size;
  Kind kind;
  int device;
  char *bytes;  // where the values are
};

int allocate(size_t size, Kind kind, uint64_t *address);
int release(uint64_t address, Kind kind);
void release_later();  // what the collector of Python's garbage gave back within an operation
bool find(uint64_t address, Allocation *found);  // of memory that is not free
// Where the bytes are, if all of [address, address + size) belongs to one allocation; host memory
// that the driver does not know is its own.
char *bytes_at(uint64_t address, size_t size);
int copy(uint64_t to, uint64_t from, size_t size, int kind, uint64_t stream, bool wait);
int fill(uint64_t to, int value, size_t size, uint64_t stream);

// ---- work

struct Operation;
using OperationPtr = std::shared_ptr<Operation>;
using Work = std::function<int()>;  // returns a Status; empty: a mark

uint64_t next_number();

struct Operation {
  std::string what;
  uint64_t number = next_number();  // in the order of the calls
  int device = 0;
  Work work;
  std::vector<OperationPtr> after;  // what must have been done before
  enum { WAITING, RUNNING, DONE } progress = WAITING;
  double finished = 0;  // seconds, of a steady clock
};

struct Node {
  std::string what;
  int device;
  Work work;
  std::vector<int> after;  // earlier nodes
};

struct Graph {
  std::vector<Node> nodes;
  OperationPtr last;  // of an executable graph: the end of its last launch
};

struct Capture {
  uint64_t number;
  int mode;  // 0 global, 1 of the thread, 2 relaxed
  std::thread::id thread;
  Stream *origin;
  std::set<Stream *> streams;
  std::shared_ptr<Graph> graph;
  bool invalid = false, ended = false;
};

struct Stream {
  int device = 0;
  unsigned flags = 0;  // 1: does not synchronize with the default stream
  int priority = 0;
  OperationPtr last;
  std::shared_ptr<Capture> capture;
  std::vector<int> frontier;  // of a capture: what the next node comes after
  bool destroyed = false;     // what waits in it is done all the same
};

struct Event {
  int device = 0;
  unsigned flags = 0;  // 2: without a time
  OperationPtr mark;
  std::shared_ptr<Capture> capture;
  std::vector<int> frontier;
};

enum class Policy {
  late,    // work is done when something waits for it, and what nothing orders in reverse
  eager,   // at once
  random,  // when something waits for it, and what nothing orders in any order
};
extern Policy policy;
void seed_order(uint64_t seed);

constexpr uint64_t LEGACY = 1, PER_THREAD = 2;  // handles besides 0
Stream *find_stream(uint64_t handle);            // of the current device, or nullptr
int create_stream(unsigned flags, int priority, uint64_t *handle);
int destroy_stream(uint64_t handle);
int submit(uint64_t stream, const char *what, Work work, OperationPtr *operation = nullptr);
int synchronize_stream(uint64_t handle);
int query_stream(uint64_t handle);
int synchronize_device();
int complete(const OperationPtr &operation);

int create_event(unsigned flags, uint64_t *handle);
int destroy_event(uint64_t handle);
int record_event(uint64_t event, uint64_t stream);
int wait_event(uint64_t stream, uint64_t event);
int synchronize_event(uint64_t event);
int query_event(uint64_t event);
int elapsed(uint64_t before, uint64_t after, float *milliseconds);

// ---- captures and graphs

int begin_capture(uint64_t stream, int mode);
int end_capture(uint64_t stream, uint64_t *graph);
// Status 0: none, 1: captures, 2: was invalidated.
int capture_of(uint64_t stream, int *status, uint64_t *number);
// An error where a capture forbids a call that might wait for the device.
int forbidden_by_captures(const char *call);
int forbidden_on_device(const char *call, int device);  // while anything on it is captured
int add_node(Stream &stream, const char *what, Work work);
int invalidate(Capture &capture, int status, const char *why);
int instantiate(uint64_t graph, uint64_t *executable);
int launch_graph(uint64_t executable, uint64_t stream);
int destroy_graph(uint64_t graph);
void abandon_captures();

// ---- machine code

struct KernelParameter {
  uint32_t offset, size;
};

struct KernelCode {
  std::vector<KernelParameter> parameters;
  uint32_t shared = 0;       // static bytes
  uint32_t max_threads = 0;  // 0: not said
  uint32_t registers = 0;
  uint32_t cluster[3] = {0, 0, 0};
};

// Reads a cubin; the sentence of what is wrong with it, or nothing.
std::string read_cubin(const char *image, size_t size, int *architecture,
                       std::map<std::string, KernelCode> *kernels);
size_t size_of_cubin(const char *image);

int load_module(const char *image, size_t size, const char *path, uint64_t *handle);
int unload_module(uint64_t handle);
int get_function(uint64_t module, const char *name, uint64_t *handle);
int set_function_attribute(uint64_t function, int attribute, int value);
int get_function_attribute(uint64_t function, int attribute, int *value);
int launch(uint64_t function, const unsigned (&grid)[3], const unsigned (&block)[3],
           unsigned shared, uint64_t stream, void **parameters);

struct TensorMapRequest {
  uint64_t result, address;
  int type;
  unsigned rank;
  const uint64_t *extents, *strides;
  const unsigned *box, *steps;
  int interleave, swizzle;
};
int encode_tensor_map(const TensorMapRequest &request);

// ---- calls

// Counts the calls of one entry point.
struct Counter {
  explicit Counter(const char *name);
  const char *name;
  uint64_t calls = 0;
};

// What every call does first: counts, and fails where nothing works any more.
int enter(Counter &counter);
int enter_with_context(Counter &counter);  // makes the current device's context current
int enter_to_release(Counter &counter);    // works also where no device is visible any more

}  // namespace driver

#define ENTER(name)                             \
  do {                                          \
    static driver::Counter counter(name);       \
    if (int failed = driver::enter(counter)) return failed; \
  } while (0)
