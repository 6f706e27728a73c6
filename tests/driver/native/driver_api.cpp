// libcuda.so.1: the functions of the driver API that CuPy, cuda.bindings and this package call.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "state.h"

using namespace driver;

#define ENTER_CONTEXT(name) \
  ENTER(name);              \
  if (!has_context()) return refuse(INVALID_CONTEXT, "%s: no context is current", name)

namespace {

uint64_t context_of(int device) { return (uint64_t)&devices[device]; }

int device_of(uint64_t context) {
  for (int i = 0; i < device_count; ++i)
    if (context_of(i) == context) return i;
  return -1;
}

constexpr int VERSION = 13000;

}  // namespace

extern "C" {

int cuInit(unsigned) {
  ENTER("cuInit");
  return SUCCESS;
}

int cuDriverGetVersion(int *version) {
  *version = VERSION;
  return SUCCESS;
}

int cuGetErrorName(int status, const char **text) {
  static thread_local char name[100];
  snprintf(name, sizeof name, "CUDA_ERROR_%s", name_of(status));
  *text = status ? name : "CUDA_SUCCESS";
  return SUCCESS;
}

int cuGetErrorString(int status, const char **text) {
  *text = name_of(status);
  return SUCCESS;
}

int cuDeviceGetCount(int *count) {
  *count = device_count;
  return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
  ENTER("cuDeviceGet");
  if (ordinal < 0 || ordinal >= device_count) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(uint64_t *context, int device) {
  ENTER("cuDevicePrimaryCtxRetain");
  *context = context_of(device);
  return SUCCESS;
}

int cuCtxGetCurrent(uint64_t *context) {
  ENTER("cuCtxGetCurrent");
  *context = has_context() ? context_of(current_device()) : 0;
  return SUCCESS;
}

int cuCtxSetCurrent(uint64_t context) {
  ENTER("cuCtxSetCurrent");
  int device = device_of(context);
  if (device < 0) return refuse(INVALID_CONTEXT, "cuCtxSetCurrent: it is no primary context");
  set_current_device(device);
  make_context();
  return SUCCESS;
}

int cuCtxGetDevice(int *device) {
  ENTER_CONTEXT("cuCtxGetDevice");
  *device = current_device();
  return SUCCESS;
}

int cuCtxSynchronize() {
  ENTER_CONTEXT("cuCtxSynchronize");
  return synchronize_device();
}

int cuModuleLoad(uint64_t *module, const char *path) {
  ENTER_CONTEXT("cuModuleLoad");
  std::ifstream file(path, std::ios::binary);
  if (!file) return refuse(FILE_NOT_FOUND, "cuModuleLoad: there is no file %s", path);
  std::string image{std::istreambuf_iterator<char>(file), {}};
  return load_module(image.data(), image.size(), path, module);
}

int cuModuleLoadData(uint64_t *module, const char *image) {
  ENTER_CONTEXT("cuModuleLoadData");
  if (memcmp(image, "\177ELF", 4)) return refuse(INVALID_IMAGE, "cuModuleLoadData: no cubin");
  return load_module(image, size_of_cubin(image), "memory", module);
}

int cuModuleUnload(uint64_t module) {
  static Counter counter("cuModuleUnload");
  if (int failed = enter_to_release(counter)) return failed;
  return unload_module(module);
}

int cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name) {
  ENTER_CONTEXT("cuModuleGetFunction");
  return get_function(module, name, function);
}

int cuFuncSetAttribute(uint64_t function, int attribute, int value) {
  ENTER_CONTEXT("cuFuncSetAttribute");
  return set_function_attribute(function, attribute, value);
}

int cuFuncGetAttribute(int *value, int attribute, uint64_t function) {
  ENTER_CONTEXT("cuFuncGetAttribute");
  return get_function_attribute(function, attribute, value);
}

int cuLaunchKernel(uint64_t function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, uint64_t stream, void **parameters,
                   void **extra) {
  ENTER_CONTEXT("cuLaunchKernel");
  if (extra) return refuse(NOT_SUPPORTED, "cuLaunchKernel: extra is not played");
  return launch(function, {gx, gy, gz}, {bx, by, bz}, shared, stream, parameters);
}

int cuTensorMapEncodeTiled(void *result, int type, unsigned rank, void *address,
                           const uint64_t *extents, const uint64_t *strides, const unsigned *box,
                           const unsigned *steps, int interleave, int swizzle, int, int) {
  ENTER_CONTEXT("cuTensorMapEncodeTiled");
  return encode_tensor_map({(uint64_t)result, (uint64_t)address, type, rank, extents, strides, box,
                            steps, interleave, swizzle});
}

int cuStreamGetCaptureInfo_v3(uint64_t stream, int *status, uint64_t *number, void **graph,
                              const void ***before, const void **edges, size_t *count) {
  ENTER_CONTEXT("cuStreamGetCaptureInfo");
  uint64_t found;
  if (graph) *graph = nullptr;
  if (before) *before = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return capture_of(stream, status, number ? number : &found);
}

int cuStreamGetCaptureInfo_v2(uint64_t stream, int *status, uint64_t *number, void **graph,
                              const void ***before, size_t *count) {
  return cuStreamGetCaptureInfo_v3(stream, status, number, graph, before, nullptr, count);
}

int cuStreamSynchronize(uint64_t stream) {
  ENTER_CONTEXT("cuStreamSynchronize");
  return synchronize_stream(stream);
}

int cuMemAlloc_v2(uint64_t *address, size_t size) {
  ENTER_CONTEXT("cuMemAlloc");
  if (size == 0) return INVALID_VALUE;
  return allocate(size, Kind::device, address);
}

int cuMemFree_v2(uint64_t address) {
  static Counter counter("cuMemFree");
  if (int failed = enter_to_release(counter)) return failed;
  return release(address, Kind::device);
}

// The private tables of the real driver are not here: the real runtime cannot be used on this one.
int cuGetExportTable(const void **table, const void *) {
  *table = nullptr;
  return NOT_FOUND;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t, int *status) {
  static void *self = [] {
    Dl_info here;
    dladdr((void *)cuInit, &here);
    return dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  }();
  *function = nullptr;
  for (const char *suffix : {"_v3", "_v2", ""}) {
    if (*function || (!strcmp(suffix, "_v3") && version < 12030)) continue;
    *function = dlsym(self, (std::string(name) + suffix).c_str());
  }
  if (status) *status = *function ? 0 : 1;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
  return SUCCESS;
}

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
