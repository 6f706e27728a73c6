// What shared memory's bandwidth is spent on: requests of warps, each in wavefronts of 128 bytes.
#pragma once
#include "state.h"

namespace emulator {

// A lane's access of shared memory. The i-th accesses of a warp's lanes at one place in the code
// are taken for one request.
void count_access(RequestKind kind, const void* address, uint32_t bytes, const void* pc);
// The rows of 16 bytes, eight a matrix, of ldmatrix or stmatrix.
void count_matrices(RequestKind kind, void* const* rows, uint32_t count);
void count_partial_requests();  // of a block that has ended
void forget_requests();

}  // namespace emulator
