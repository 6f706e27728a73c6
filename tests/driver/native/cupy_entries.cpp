// The CUDA runtime as CuPy's modules call it: the C functions that cupy_backends.cuda.api.runtime
// exports to them, which wrap the runtime's functions of the same names and raise its errors.
// cupy_entries.py puts these in the place of CuPy's.
#include <cstring>

#include "state.h"

using namespace driver;

struct _object;
using PyObject = _object;

extern "C" {  // of the interpreter that has loaded this library
PyObject *PyLong_FromLong(long);
PyObject *Py_BuildValue(const char *, ...);
void *PyEval_SaveThread();
void PyEval_RestoreThread(void *);
void PyErr_SetString(PyObject *, const char *);
extern PyObject *PyExc_RuntimeError;
}

namespace {

PyObject *(*check_status)(int, int);               // CuPy's own: None, or raises its error
PyObject *(*properties)(int), *(*attributes)(uint64_t, int, int);  // Python's, of library.py

template <typename Call>
int without_lock(Call call) {
  void *thread = PyEval_SaveThread();
  int status = call();
  PyEval_RestoreThread(thread);
  return status;
}

PyObject *none_or_error(int status) { return check_status(status, 0); }

// A value, or CuPy's mark of an error that has been raised.
template <typename T>
T value_or_error(int status, T value, T on_error) {
  if (!status) return value;
  check_status(status, 0);
  return on_error;
}

struct Optional {  // arguments that Cython passes only if they are given
  int count;
  unsigned value;
};

}  // namespace

#define ENTER_RUNTIME(name)                                         \
  static Counter counter(name);                                     \
  int status = enter_with_context(counter)
#define IF_ENTERED(...) \
  if (!status) status = without_lock([&]() -> int { return __VA_ARGS__; })

// Functions that return None, and those that return a handle.
#define ACTION(name, parameters, ...)        \
  PyObject *cupy_##name parameters {         \
    ENTER_RUNTIME(#name);                    \
    IF_ENTERED(__VA_ARGS__);                 \
    return none_or_error(status);            \
  }
#define RELEASE(name, parameters, ...)             \
  PyObject *cupy_##name parameters {               \
    static Counter counter(#name);                 \
    int status = enter_to_release(counter);        \
    IF_ENTERED(__VA_ARGS__);                       \
    return none_or_error(status);                  \
  }
#define CREATE(name, parameters, ...)                    \
  intptr_t cupy_##name parameters {                      \
    ENTER_RUNTIME(#name);                                \
    uint64_t made = 0;                                   \
    IF_ENTERED(__VA_ARGS__);                             \
    return value_or_error(status, (intptr_t)made, (intptr_t)0); \
  }

extern "C" {

void cupy_use(PyObject *(*check)(int, int), PyObject *(*of_device)(int),
              PyObject *(*of_pointer)(uint64_t, int, int)) {
  check_status = check;
  properties = of_device;
  attributes = of_pointer;
}

// ---- devices

int cupy_getDevice(int) {
  static Counter counter("getDevice");
  return value_or_error(enter(counter), current_device(), -1);
}

PyObject *cupy_setDevice(int device, int) {
  static Counter counter("setDevice");
  int status = enter(counter);
  if (status == INVALID_DEVICE || (!status && (device < 0 || device >= device_count)))
    return none_or_error(refuse(INVALID_DEVICE, "setDevice: there is no device %d", device));
  if (!status) {
    set_current_device(device);
    make_context();
  }
  return none_or_error(status);
}

int cupy_getDeviceCount(int) {
  static Counter counter("getDeviceCount");
  return value_or_error(enter(counter), device_count, -1);
}

int cupy_deviceGetAttribute(int attribute, int device, int) {
  static Counter counter("deviceGetAttribute");
  int status = enter(counter);
  if (!status && (device < 0 || device >= device_count)) status = INVALID_DEVICE;
  int value = 0;
  switch (attribute) {  // cudaDeviceAttr; those of an H200 where they are known
    case 1: value = 1024; break;                           // threads of a block
    case 2: case 3: value = 1024; break;                   // its extents
    case 4: value = 64; break;
    case 5: value = 0x7fffffff; break;                     // extents of a grid
    case 6: case 7: value = 65535; break;
    case 8: value = DEFAULT_SHARED; break;
    case 10: value = 32; break;                            // lanes of a warp
    case 12: case 82: value = 65536; break;                // registers
    case 13: value = 1980000; break;                       // kHz
    case 16: value = 132; break;                           // multiprocessors
    case 36: value = 3201000; break;                       // kHz, of the memory
    case 37: value = 6144; break;                          // bits of its bus
    case 38: value = 1 << 16; break;                       // bytes of the L2 cache: few, for speed
    case 39: value = 2048; break;                          // threads of a multiprocessor
    case 41: value = 1; break;                             // unified addresses
    case 75: value = compute_capability / 10; break;
    case 76: value = compute_capability % 10; break;
    case 81: value = 228 << 10; break;                     // shared memory of a multiprocessor
    case 97: value = MAX_SHARED; break;
    default: break;
  }
  return value_or_error(status, value, -1);
}

PyObject *cupy_getDeviceProperties(int device, int) {
  static Counter counter("getDeviceProperties");
  int status = enter(counter);
  if (!status && (device < 0 || device >= device_count)) status = INVALID_DEVICE;
  return status ? none_or_error(status) : properties(device);
}

int cupy_driverGetVersion(int) { return 13000; }
int cupy_runtimeGetVersion(int) { return 13000; }

ACTION(deviceSynchronize, (int), synchronize_device())

int cupy_deviceCanAccessPeer(int device, int peer, int) {
  static Counter counter("deviceCanAccessPeer");
  return value_or_error(enter(counter), (int)(peers_possible && device != peer), -1);
}

static int enable_peer(int peer) {
  if (!peers_possible || peer == current_device() || peer < 0 || peer >= device_count)
    return refuse(INVALID_DEVICE, "device %d cannot use memory of device %d", current_device(),
                  peer);
  Guard guard(state);
  bool added = devices[current_device()].peers.insert(peer).second;
  return added ? SUCCESS : (int)PEER_ACCESS_ALREADY_ENABLED;
}

ACTION(deviceEnablePeerAccess, (int peer, int), enable_peer(peer))
ACTION(_deviceEnsurePeerAccess, (int peer, int), [&] {
  int failed = enable_peer(peer);
  return failed == PEER_ACCESS_ALREADY_ENABLED ? SUCCESS : failed;
}())

PyObject *cupy__ensure_context() {
  static Counter counter("_ensure_context");
  return none_or_error(enter_with_context(counter));
}

// ---- memory

CREATE(malloc, (size_t size, int), allocate(size, Kind::device, &made))
CREATE(hostAlloc, (size_t size, unsigned, int), allocate(size, Kind::pinned, &made))
RELEASE(free, (intptr_t at, int), release((uint64_t)at, Kind::device))
RELEASE(freeHost, (intptr_t at, int), release((uint64_t)at, Kind::pinned))
ACTION(memcpy, (intptr_t to, intptr_t from, size_t size, int kind, int),
       copy((uint64_t)to, (uint64_t)from, size, kind, 0, true))
ACTION(memcpyAsync, (intptr_t to, intptr_t from, size_t size, int kind, intptr_t stream, int),
       copy((uint64_t)to, (uint64_t)from, size, kind, (uint64_t)stream, false))
ACTION(memcpyPeer, (intptr_t to, int, intptr_t from, int, size_t size, int),
       copy((uint64_t)to, (uint64_t)from, size, 3, 0, true))
ACTION(memcpyPeerAsync, (intptr_t to, int, intptr_t from, int, size_t size, intptr_t stream, int),
       copy((uint64_t)to, (uint64_t)from, size, 3, (uint64_t)stream, false))
ACTION(memset, (intptr_t to, int value, size_t size, int), fill((uint64_t)to, value, size, 0))
ACTION(memsetAsync, (intptr_t to, int value, size_t size, intptr_t stream, int),
       fill((uint64_t)to, value, size, (uint64_t)stream))

PyObject *cupy_memGetInfo(int) {
  ENTER_RUNTIME("memGetInfo");
  if (status) return none_or_error(status);
  size_t used = devices[current_device()].used;
  return Py_BuildValue("(nn)", (intptr_t)(device_memory - used), (intptr_t)device_memory);
}

enum MemoryType { UNREGISTERED = 0, HOST = 1, DEVICE = 2 };

static int memory_type(uint64_t at, int *device) {
  Allocation found;
  if (!find(at, &found)) return UNREGISTERED;
  *device = found.device;
  return found.kind == Kind::device ? DEVICE : HOST;
}

int cupy_pointerGetMemoryType(intptr_t at, int) {
  ENTER_RUNTIME("pointerGetMemoryType");
  int device;
  return value_or_error(status, memory_type((uint64_t)at, &device), -1);
}

PyObject *cupy_pointerGetAttributes(intptr_t at, int) {
  ENTER_RUNTIME("pointerGetAttributes");
  if (status) return none_or_error(status);
  int device = -1, type = memory_type((uint64_t)at, &device);
  return attributes((uint64_t)at, device, type);
}

// ---- streams and events

CREATE(streamCreate, (int), create_stream(0, 0, &made))
CREATE(streamCreateWithFlags, (unsigned flags, int), create_stream(flags, 0, &made))
CREATE(streamCreateWithPriority, (unsigned flags, int priority, int),
       create_stream(flags, priority, &made))
RELEASE(streamDestroy, (intptr_t stream, int), destroy_stream((uint64_t)stream))
ACTION(streamSynchronize, (intptr_t stream, int), synchronize_stream((uint64_t)stream))
ACTION(streamWaitEvent, (intptr_t stream, intptr_t event, int, Optional *),
       wait_event((uint64_t)stream, (uint64_t)event))
ACTION(streamBeginCapture, (intptr_t stream, int, Optional *mode),
       begin_capture((uint64_t)stream, mode && mode->count ? (int)mode->value : 2))
CREATE(streamEndCapture, (intptr_t stream, int), end_capture((uint64_t)stream, &made))

PyObject *cupy_streamQuery(intptr_t stream, int) {
  ENTER_RUNTIME("streamQuery");
  IF_ENTERED(query_stream((uint64_t)stream));
  return PyLong_FromLong(status);
}

unsigned cupy_streamGetFlags(intptr_t stream, int) {
  ENTER_RUNTIME("streamGetFlags");
  Stream *found = find_stream((uint64_t)stream);
  if (!status && !found) status = INVALID_HANDLE;
  return value_or_error(status, found ? found->flags : 0, 0u);
}

int cupy_streamGetPriority(intptr_t stream, int) {
  ENTER_RUNTIME("streamGetPriority");
  Stream *found = find_stream((uint64_t)stream);
  if (!status && !found) status = INVALID_HANDLE;
  return value_or_error(status, found ? found->priority : 0, 0);
}

int cupy_streamIsCapturing(intptr_t stream, int) {
  ENTER_RUNTIME("streamIsCapturing");
  int found = 0;
  uint64_t number;
  if (!status) status = capture_of((uint64_t)stream, &found, &number);
  if (!status && found == 2)
    PyErr_SetString(PyExc_RuntimeError, "the stream was capturing, but an error has invalidated "
                                        "the capture sequence");
  return value_or_error(status, found, -1);
}

CREATE(eventCreate, (int), create_event(0, &made))
CREATE(eventCreateWithFlags, (unsigned flags, int), create_event(flags, &made))
RELEASE(eventDestroy, (intptr_t event, int), destroy_event((uint64_t)event))
ACTION(eventRecord, (intptr_t event, intptr_t stream, int),
       record_event((uint64_t)event, (uint64_t)stream))
ACTION(eventSynchronize, (intptr_t event, int), synchronize_event((uint64_t)event))

PyObject *cupy_eventQuery(intptr_t event, int) {
  ENTER_RUNTIME("eventQuery");
  IF_ENTERED(query_event((uint64_t)event));
  return PyLong_FromLong(status);
}

float cupy_eventElapsedTime(intptr_t before, intptr_t after, int) {
  ENTER_RUNTIME("eventElapsedTime");
  float milliseconds = 0;
  IF_ENTERED(elapsed((uint64_t)before, (uint64_t)after, &milliseconds));
  return value_or_error(status, milliseconds, 0.0f);
}

// ---- graphs

CREATE(graphInstantiate, (intptr_t graph, int), instantiate((uint64_t)graph, &made))
ACTION(graphLaunch, (intptr_t graph, intptr_t stream, int),
       launch_graph((uint64_t)graph, (uint64_t)stream))
ACTION(graphUpload, (intptr_t, intptr_t, int), SUCCESS)
RELEASE(graphDestroy, (intptr_t graph, int), destroy_graph((uint64_t)graph))
RELEASE(graphExecDestroy, (intptr_t graph, int), destroy_graph((uint64_t)graph))

ACTION(profilerStart, (int), SUCCESS)
ACTION(profilerStop, (int), SUCCESS)
}
