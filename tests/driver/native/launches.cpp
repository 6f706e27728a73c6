// Modules, kernels and launches, checked against the machine code; tensor maps.
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "control.h"
#include "state.h"

namespace driver {
namespace {

struct Module {
  int device;
  std::string path;
  std::map<std::string, KernelCode> kernels;
};

struct Function {
  std::shared_ptr<Module> module;
  std::string name;
  const KernelCode *code;
  int max_dynamic;  // bytes of shared memory, raised by the opt-in
};

std::map<uint64_t, std::shared_ptr<Module>> modules;
std::map<uint64_t, std::shared_ptr<Function>> functions;

constexpr unsigned MAX_THREADS = 1024, MAX_BLOCK[3] = {1024, 1024, 64};
constexpr unsigned MAX_GRID[3] = {0x7fffffff, 65535, 65535};
constexpr unsigned REGISTERS = 1 << 16, MAX_PARAMETERS = 4096;  // bytes of the latter
constexpr int MAX_SHARED_ATTRIBUTE = 8;                         // CU_FUNC_ATTRIBUTE_…

int check_extents(const Function &function, const unsigned (&grid)[3], const unsigned (&block)[3],
                  unsigned shared) {
  const KernelCode &code = *function.code;
  const char *name = function.name.c_str();
  unsigned threads = block[0] * block[1] * block[2];
  for (int i = 0; i < 3; ++i) {
    if (grid[i] == 0 || grid[i] > MAX_GRID[i])
      return refuse(INVALID_VALUE, "%s: grid is %u × %u × %u", name, grid[0], grid[1], grid[2]);
    if (block[i] == 0 || block[i] > MAX_BLOCK[i] || threads > MAX_THREADS)
      return refuse(INVALID_VALUE, "%s: block is %u × %u × %u", name, block[0], block[1],
                    block[2]);
  }
  if (code.max_threads && threads > code.max_threads)
    return refuse(INVALID_VALUE, "%s: %u threads, its launch bounds allow %u", name, threads,
                  code.max_threads);
  if (code.registers * threads > REGISTERS)
    return refuse(LAUNCH_OUT_OF_RESOURCES, "%s: %u threads of %u registers", name, threads,
                  code.registers);
  if ((int)shared > function.max_dynamic || shared + code.shared > MAX_SHARED)
    return refuse(INVALID_VALUE,
                  "%s: %u bytes of dynamic shared memory beside %u static ones, it has opted into "
                  "%d",
                  name, shared, code.shared, function.max_dynamic);
  for (int i = 0; i < 3; ++i)
    if (code.cluster[i] && grid[i] % code.cluster[i])
      return refuse(INVALID_CLUSTER_SIZE, "%s: grid is %u × %u × %u, not whole clusters of "
                    "%u × %u × %u", name, grid[0], grid[1], grid[2], code.cluster[0],
                    code.cluster[1], code.cluster[2]);
  return SUCCESS;
}

// The values of all parameters, as the driver reads them when it is called.
int read_parameters(const Function &function, void **given, std::vector<char> *values) {
  const auto &parameters = function.code->parameters;
  const char *name = function.name.c_str();
  if (parameters.empty()) return SUCCESS;
  if (!given) return refuse(INVALID_VALUE, "%s: it has parameters, none are given", name);
  std::vector<std::pair<uint64_t, size_t>> places;  // addresses, and which parameter is there
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!given[i]) return refuse(INVALID_VALUE, "%s: parameter %zu is at address 0", name, i);
    places.push_back({(uint64_t)given[i], i});
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 0; i + 1 < places.size(); ++i) {
    auto [at, index] = places[i];
    auto [next, other] = places[i + 1];
    if (at != next && at + parameters[index].size > next)
      return refuse(INVALID_VALUE,
                    "%s: parameter %zu has %u bytes, and parameter %zu begins %llu bytes behind it",
                    name, index, parameters[index].size, other, (unsigned long long)(next - at));
  }
  size_t size = parameters.back().offset + parameters.back().size;
  if (size > MAX_PARAMETERS) return refuse(INVALID_VALUE, "%s: %zu bytes of parameters", name, size);
  values->assign(size, 0);
  for (size_t i = 0; i < parameters.size(); ++i)
    memcpy(values->data() + parameters[i].offset, given[i], parameters[i].size);
  return SUCCESS;
}

template <typename T>
std::shared_ptr<T> known(std::map<uint64_t, std::shared_ptr<T>> &all, uint64_t handle) {
  Guard guard(state);
  auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace

int load_module(const char *image, size_t size, const char *path, uint64_t *handle) {
  auto module = std::make_shared<Module>();
  int architecture = 0;
  std::string wrong = read_cubin(image, size, &architecture, &module->kernels);
  if (!wrong.empty()) return refuse(INVALID_IMAGE, "%s: %s", path, wrong.c_str());
  if (architecture > compute_capability || architecture / 10 != compute_capability / 10)
    return refuse(NO_BINARY_FOR_GPU, "%s is for sm_%d, the device is of %d.%d", path, architecture,
                  compute_capability / 10, compute_capability % 10);
  module->device = current_device();
  module->path = path;
  Guard guard(state);
  *handle = (uint64_t)module.get();
  modules[*handle] = module;
  return SUCCESS;
}

int unload_module(uint64_t handle) {
  Guard guard(state);
  if (!modules.erase(handle)) return refuse(INVALID_HANDLE, "moduleUnload: twice");
  return SUCCESS;
}

int get_function(uint64_t handle, const char *name, uint64_t *result) {
  auto module = known(modules, handle);
  if (!module) return refuse(INVALID_HANDLE, "moduleGetFunction: there is no such module");
  auto code = module->kernels.find(name);
  if (code == module->kernels.end())
    return refuse(NOT_FOUND, "%s has no kernel %s", module->path.c_str(), name);
  auto function = std::make_shared<Function>();
  function->module = module;
  function->name = name;
  function->code = &code->second;
  function->max_dynamic = (int)(DEFAULT_SHARED - std::min(code->second.shared, DEFAULT_SHARED));
  Guard guard(state);
  *result = (uint64_t)function.get();
  functions[*result] = function;
  return SUCCESS;
}

int set_function_attribute(uint64_t handle, int attribute, int value) {
  auto function = known(functions, handle);
  if (!function) return refuse(INVALID_HANDLE, "funcSetAttribute: there is no such function");
  if (attribute != MAX_SHARED_ATTRIBUTE) return SUCCESS;
  if (value < 0 || value + function->code->shared > MAX_SHARED)
    return refuse(INVALID_VALUE, "%s: opts into %d bytes of shared memory",
                  function->name.c_str(), value);
  function->max_dynamic = value;
  return SUCCESS;
}

int get_function_attribute(uint64_t handle, int attribute, int *value) {
  auto function = known(functions, handle);
  if (!function) return refuse(INVALID_HANDLE, "funcGetAttribute: there is no such function");
  const KernelCode &code = *function->code;
  switch (attribute) {
    case 0: *value = (int)(code.max_threads ? code.max_threads : MAX_THREADS); break;
    case 1: *value = (int)code.shared; break;
    case 4: *value = (int)code.registers; break;
    case 5: case 6: *value = compute_capability; break;
    case MAX_SHARED_ATTRIBUTE: *value = function->max_dynamic; break;
    default: *value = 0;
  }
  return SUCCESS;
}

int launch(uint64_t handle, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared,
           uint64_t stream, void **given) {
  auto function = known(functions, handle);
  if (!function) return refuse(INVALID_HANDLE, "launchKernel: there is no such function");
  if (function->module->device != current_device())
    return refuse(INVALID_HANDLE, "%s was loaded on device %d, current is device %d",
                  function->name.c_str(), function->module->device, current_device());
  if (int failed = check_extents(*function, grid, block, shared)) return failed;
  auto values = std::make_shared<std::vector<char>>();
  if (int failed = read_parameters(*function, given, values.get())) return failed;
  LaunchRecord record{};
  record.device = current_device();
  std::copy(grid, grid + 3, record.grid);
  std::copy(block, block + 3, record.block);
  record.shared = shared;
  auto work = [=]() mutable -> int {
    record.name = function->name.c_str();
    record.path = function->module->path.c_str();
    record.module = (uint64_t)function->module.get();
    std::vector<LaunchParameter> parameters;
    for (const auto &one : function->code->parameters)
      parameters.push_back({values->data() + one.offset, one.size});
    record.parameters = parameters.data();
    record.parameter_count = (uint32_t)parameters.size();
    return run_launch(record);
  };
  return submit(stream, function->name.c_str(), work);
}

// ---- tensor maps: what cuTensorMapEncodeTiled's page of the driver API's manual demands

int encode_tensor_map(const TensorMapRequest &r) {
  static const unsigned BYTES[] = {1, 2, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4};  // by CUtensorMapDataType
  static const unsigned SWIZZLE[] = {0, 32, 64, 128};                      // by CUtensorMapSwizzle
  if (!r.result || r.result % 64)
    return refuse(INVALID_VALUE, "tensor map: it is to be written to %#llx, which is not 64-byte "
                  "aligned", (unsigned long long)r.result);
  if (!r.address || r.address % 16)
    return refuse(INVALID_VALUE, "tensor map: the array is at %#llx, 0 or not 16-byte aligned",
                  (unsigned long long)r.address);
  if (r.type < 0 || r.type > 12) return refuse(INVALID_VALUE, "tensor map: type %d", r.type);
  if (r.rank < 1 || r.rank > 5) return refuse(INVALID_VALUE, "tensor map: rank %u", r.rank);
  if (r.interleave) return refuse(NOT_SUPPORTED, "tensor map: interleaved");
  if (r.swizzle < 0 || r.swizzle > 3)
    return refuse(INVALID_VALUE, "tensor map: swizzle %d", r.swizzle);
  const uint64_t bytes = BYTES[r.type];
  uint64_t inner = bytes * r.extents[0];
  for (unsigned i = 0; i < r.rank; ++i) {
    if (r.extents[i] < 1 || r.extents[i] > 1ull << 32)
      return refuse(INVALID_VALUE, "tensor map: extent %u is %llu", i,
                    (unsigned long long)r.extents[i]);
    if (r.box[i] < 1 || r.box[i] > 256)
      return refuse(INVALID_VALUE, "tensor map: box %u is %u", i, r.box[i]);
    if (r.steps[i] < 1 || r.steps[i] > 8)
      return refuse(INVALID_VALUE, "tensor map: element stride %u is %u", i, r.steps[i]);
    if (i == 0) continue;
    uint64_t stride = r.strides[i - 1];
    if (stride % 16 || stride >= 1ull << 40 || stride < inner)
      return refuse(INVALID_VALUE, "tensor map: stride %u is %llu bytes, %llu are within", i - 1,
                    (unsigned long long)stride, (unsigned long long)inner);
    inner = stride * r.extents[i];
  }
  if (bytes * r.box[0] % 16 || (r.swizzle && bytes * r.box[0] > SWIZZLE[r.swizzle]))
    return refuse(INVALID_VALUE, "tensor map: a row of the box has %llu bytes, the swizzle %u",
                  (unsigned long long)(bytes * r.box[0]), SWIZZLE[r.swizzle]);
  uint64_t reach = bytes * r.extents[0];
  for (unsigned i = 1; i < r.rank; ++i) reach += r.strides[i - 1] * (r.extents[i] - 1);
  Allocation known;
  if (!find(r.address, &known) || !bytes_at(r.address, reach))
    return refuse(INVALID_VALUE, "tensor map: %llu bytes at %#llx are not all within one allocation",
                  (unsigned long long)reach, (unsigned long long)r.address);
  TensorMapRecord record{};
  memcpy(record.magic, TENSOR_MAP_MAGIC, sizeof record.magic);
  record.address = r.address;
  record.rank = r.rank;
  record.item_bytes = (uint32_t)bytes;
  record.swizzle = SWIZZLE[r.swizzle];
  for (unsigned i = 0; i < r.rank; ++i) {
    record.last[i] = (uint32_t)(r.extents[i] - 1);
    record.box[i] = (uint16_t)r.box[i];
    if (i) record.strides[i - 1] = r.strides[i - 1];
  }
  memset((void *)r.result, 0, 128);
  memcpy((void *)r.result, &record, sizeof record);
  return SUCCESS;
}

}  // namespace driver
