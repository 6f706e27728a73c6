// A timer's signal only raises a flag, which the scheduler and the checker look at: in between, the
// C library may hold a lock. A kernel that has not looked a second later is in a loop of its own
// that touches no memory, and is stopped where it is.
#include "watchdog.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "failures.h"
#include "scheduler.h"

namespace emulator {

static timer_t timer;
static bool armed;
static struct sigaction previous_action;

static int timer_signal() { return SIGRTMAX - 3; }

void fail_at_deadline() {
  fail_with({}, "not finished after %u s (an endless loop?)", launch->timeout_seconds);
}

static void on_timer(int) {
  if (deadline_passed && threads_run) fail_at_deadline();
  deadline_passed = true;
}

void start_watchdog() {
  deadline_passed = false;
  armed = launch->timeout_seconds != 0;
  if (!armed) return;
  struct sigaction action {};
  action.sa_handler = on_timer;
  action.sa_flags = SA_NODEFER | SA_ONSTACK;  // the handler may be left for good
  sigaction(timer_signal(), &action, &previous_action);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = timer_signal();
  event._sigev_un._tid = pid_t(syscall(SYS_gettid));
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  const itimerspec limit{{1, 0}, {time_t(launch->timeout_seconds), 0}};
  timer_settime(timer, 0, &limit, nullptr);
}

void stop_watchdog() {
  if (!armed) return;
  timer_delete(timer);
  sigaction(timer_signal(), &previous_action, nullptr);
  armed = false;
}

}  // namespace emulator
