// What Python sees of the driver: launches that it carries out, and what tests ask and set.
// execution.py and library.py have the same structures.
#pragma once

#include <cstdint>

namespace driver {

struct LaunchParameter {
  const void *value;
  uint64_t size;
};

struct LaunchRecord {
  const char *name, *path;  // of the kernel, and of the file that its cubin came from
  uint64_t module;          // that the kernel is from
  uint32_t grid[3], block[3];
  uint32_t shared;
  int32_t device;
  const LaunchParameter *parameters;
  uint32_t parameter_count;
};

// What is in the 128 bytes of a tensor map here.
constexpr char TENSOR_MAP_MAGIC[8] = "played";
struct TensorMapRecord {
  char magic[8];
  uint64_t address;
  uint64_t strides[4];
  uint32_t last[5];  // the extents, less one
  uint16_t box[5];
  uint16_t rank;
  uint32_t item_bytes, swizzle;
};
static_assert(sizeof(TensorMapRecord) <= 128);

int run_launch(const LaunchRecord &record);

}  // namespace driver
