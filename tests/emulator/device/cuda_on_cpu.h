// Comes before a .cu file when g++ compiles it for the emulator (precompiled once per mode).
#pragma once
#define GPUGRAD_EMULATOR 1

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "atomics.h"
#include "builtins.h"
#include "entry_points.h"
#include "intrinsics.h"
#include "ptx.h"
#include "warp.h"

// After thread_local, g++ takes GNU attributes but no standard ones.
#define alignas(...) __attribute__((aligned(__VA_ARGS__)))
