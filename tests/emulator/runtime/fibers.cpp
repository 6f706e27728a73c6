// A switch saves the callee-saved registers on the stack that it leaves (x86-64, System V).
#include "fibers.h"

#include <cstring>

#include "failures.h"

asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.globl emulator_fiber_start
.hidden emulator_fiber_start
emulator_fiber_start:
  xorl %ebp, %ebp
  call emulator_run_thread
  ud2
)");
extern "C" EMULATOR_HIDDEN void emulator_fiber_start();

namespace emulator {

static std::vector<char*> free_stacks;

constexpr uint64_t CANARY = 0xA5A5A5A5A5A5A5A5ull;  // at the far end of every stack
static uint64_t& canary(char* stack) { return *reinterpret_cast<uint64_t*>(stack); }

void lay_out_stacks() {
  free_stacks.clear();
  for (uint32_t i = cluster_threads; i-- > 0;) {
    free_stacks.push_back(launch->stacks + launch->stack_bytes * i);
  }
}

void prepare_fiber(Thread& thread) {
  constexpr uint64_t SAVED_REGISTERS = 6;
  thread.stack = free_stacks.back();
  free_stacks.pop_back();
  canary(thread.stack) = CANARY;
  // Neighbouring threads start on different cache lines, or all stacks would share a cache set.
  uint64_t top = address_of(thread.stack) + launch->stack_bytes - 64 - thread.id % 16 * 128;
  auto* words = reinterpret_cast<void**>(top & ~uint64_t(63));
  *--words = nullptr;
  *--words = nullptr;
  *--words = reinterpret_cast<void*>(emulator_fiber_start);
  words -= SAVED_REGISTERS;
  memset(words, 0, SAVED_REGISTERS * sizeof(void*));
  thread.stack_pointer = words;
}

// The caller still runs on the stack; it is not reused before the caller has switched away.
void release_fiber(Thread& thread) {
  if (canary(thread.stack) != CANARY) {
    fail_with({}, "stack overflow: a thread needs more than %llu bytes of local memory",
              static_cast<unsigned long long>(launch->stack_bytes));
  }
  free_stacks.push_back(thread.stack);
  thread.stack = nullptr;
}

}  // namespace emulator
