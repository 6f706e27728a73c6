// The first failure of any worker wins. It ends the worker, or the launch if there is only one.
#include "failures.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "scheduler.h"

namespace emulator {

static void locate(uint64_t address, Failure& failure) {
  if (dynamic_memory.holds(address)) {
    failure.place = Place::DYNAMIC_SHARED;
    failure.offset = int64_t(address - address_of(dynamic_memory.begin));
    return;
  }
  if (shared_memory.holds(address)) {
    failure.place = Place::STATIC_SHARED;
    failure.offset = int64_t(address - address_of(shared_memory.begin));
    return;
  }
  constexpr uint64_t NEAR = 1 << 20;
  uint64_t nearest = NEAR;
  failure.place = Place::ELSEWHERE;
  failure.offset = int64_t(address);
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    const Buffer& buffer = launch->buffers[i];
    const uint64_t end = buffer.base + buffer.bytes;
    const uint64_t distance = address < buffer.base ? buffer.base - address
                              : address >= end      ? address - end + 1
                                                    : 0;
    if (distance >= nearest) continue;
    nearest = distance;
    failure.place = Place::ARGUMENT;
    failure.buffer = uint32_t(i);
    failure.offset = int64_t(address - buffer.base);
  }
}

[[noreturn]] static void end_worker() {
  if (!isolated) abandon_threads();
  fflush(stdout);  // what kernels printed
  _exit(3);
}

[[noreturn]] static void end_with(const Evidence& evidence, const char* format,
                                  va_list arguments) {
  Failure& failure = shared_state->failure;
  int32_t none = 0;
  if (!__atomic_compare_exchange_n(&failure.occurred, &none, 1, false, __ATOMIC_SEQ_CST,
                                   __ATOMIC_SEQ_CST)) {
    end_worker();
  }
  const int length = vsnprintf(failure.message, sizeof failure.message, format, arguments);
  if (current_block != current->block && shared_memory.holds(address_of(evidence.address))) {
    snprintf(failure.message + length, sizeof failure.message - size_t(length),
             " in block %u of the cluster", current_block->rank);
  }
  memcpy(failure.block, &current->block->index, sizeof failure.block);
  memcpy(failure.thread, &threadIdx, sizeof failure.thread);
  if (evidence.pc) {
    failure.pc = address_of(evidence.pc) - address_of(module_image.begin);
  } else if (evidence.site.file) {
    snprintf(failure.site_file, sizeof failure.site_file, "%s", file_name(evidence.site.file));
    failure.site_line = uint32_t(evidence.site.line);
  }
  failure.other_pc = evidence.other_pc;
  if (evidence.address) locate(address_of(evidence.address), failure);
  end_worker();
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  end_with(evidence_here(nullptr), format, arguments);
}

void fail_at(Site site, const char* message) {
  current->site = site;
  fail("%s", message);
}

void fail_with(Evidence evidence, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  end_with(evidence, format, arguments);
}

std::string name_of_shared(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  if (dynamic_memory.holds(address_of(byte))) {
    return "(dynamic shared memory, byte " + std::to_string(byte - dynamic_memory.begin) + ")";
  }
  return "({shared " + std::to_string(byte - shared_memory.begin) + "})";
}

const char* file_name(const char* path) {
  if (!path) return "";
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

constexpr int CAUGHT[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction previous_actions[sizeof CAUGHT / sizeof CAUGHT[0]];
static stack_t previous_stack;
static pthread_t catching_thread;

static void on_signal(int signal, siginfo_t* info, void* context) {
  if (!pthread_equal(pthread_self(), catching_thread)) {
    ::signal(signal, SIG_DFL);  // not of this launch: it comes again and is not caught
    return;
  }
  const auto* machine = static_cast<ucontext_t*>(context);
  Evidence evidence;
  evidence.pc = reinterpret_cast<void*>(machine->uc_mcontext.gregs[REG_RIP] + 1);
  if (signal == SIGFPE) fail_with(evidence, "integer division by zero");
  if (signal != SIGSEGV) fail_with(evidence, "signal %d", signal);
  evidence.address = info->si_addr;
  fail_with(evidence, "memory fault, out of bounds or a misaligned vector access");
}

void catch_signals() {
  static char alternative_stack[64 << 10];
  stack_t stack{};
  stack.ss_sp = alternative_stack;
  stack.ss_size = sizeof alternative_stack;
  sigaltstack(&stack, &previous_stack);
  catching_thread = pthread_self();
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // the handler may be left for good
  for (size_t i = 0; i < sizeof CAUGHT / sizeof CAUGHT[0]; i++) {
    sigaction(CAUGHT[i], &action, &previous_actions[i]);
  }
}

void release_signals() {
  for (size_t i = 0; i < sizeof CAUGHT / sizeof CAUGHT[0]; i++) {
    sigaction(CAUGHT[i], &previous_actions[i], nullptr);
  }
  sigaltstack(&previous_stack, nullptr);
}

}  // namespace emulator
