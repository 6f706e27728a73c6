"""Tasks on several cores: a pool of worker threads, each with buffers and one BLAS thread.

What the tasks are follows from shapes alone, and each writes a part of the results that no other
does. So neither the number of workers nor which of them takes a task changes a bit. The caller
takes tasks too, and waits for those alone that workers have taken.
"""

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gpugrad.cpu import threads
from gpugrad.cpu.arithmetic import store
from gpugrad.cpu.cuts import BLOCK, cut
from gpugrad.cpu.scratch import Array, Scratch, take

Task = Callable[[Scratch], object]

LARGE_SUM = 8 * BLOCK  # elements of the parts of a sum that is worth several threads
POLLS = 100  # with which workers are waited for, a microsecond each, before pauses between them
PAUSE = 5e-5  # seconds
IDLE = 60  # seconds after which a worker ends


class Work:
    """Tasks that any worker may take, and sums of the parts that they compute.

    Attributes
    ----------
    tasks : list of functions
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self._sums: list[tuple[Array, Array, bool]] = []

    def parts(self, count: int, out: Array, *, add: bool) -> Array:
        """Return so many parts of a sum (m,), zeros in float64, that are added up into out."""
        parts = np.zeros((count, len(out)), np.float64)
        self.sum(parts, out, add=add)
        return parts

    def sum(self, parts: Array, out: Array, *, add: bool) -> None:
        """Have parts (count, *shape) added up in order into out (*shape) after the tasks."""
        self._sums.append((parts, out, add))

    def run(self) -> None:
        """Run every task once, on the calling thread and on others, then add up.

        After an exception, Ctrl-C too, no further task begins. It is raised here when those that
        have begun are done.
        """
        _run(self.tasks)
        large: list[Task] = []
        for parts, out, add in self._sums:
            if parts.size > LARGE_SUM:
                strips = cut(len(out), max(1, BLOCK * len(out) // parts.size))
                large += (partial(_add_up, parts[:, one], out[one], add) for one in strips)
            else:
                with np.errstate(all="ignore"):
                    _add_up(parts, out, add)
        if large:
            _run(large)


def _add_up(parts: Array, out: Array, add: bool, _: Scratch | None = None) -> None:
    store(np.add.reduce(parts, axis=0), out, add=add)


def _run(tasks: Sequence[Task]) -> None:
    """Run tasks on as many threads as there are to be.

    A Ctrl-C may come anywhere. So what has to be undone can be undone twice, and is where the first
    time was interrupted.
    """
    count = min(threads.number_of_workers(), len(tasks)) - 1
    job, hold = _Job(tasks), threads.Hold(threads.libraries())
    try:
        hold.take()
        _running.append(job)
        if count > 0 and not sys.is_finalizing():  # other threads do not run any more
            _start(job, count)
        job.work()
        _end(job, hold)
    except BaseException as error:
        job.fail(error)
        _end(job, hold)
    failed, job.error = job.error, None
    try:
        if failed is not None:
            raise failed
    finally:
        del failed  # which would keep its frames, and their arrays


def _end(job: "_Job", hold: threads.Hold) -> None:
    job.wait()
    if job in _running:
        _running.remove(job)
    hold.release()


class _Job:
    """Tasks, which any number of threads work off together.

    Attributes
    ----------
    caller : int
        The thread that waits for them.
    workers : list of Worker
        Those that may have a task at the moment.
    alone : bool
        Whether only the caller may take further tasks.
    error : exception or None
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.caller = threading.get_ident()
        self.workers: list[Worker] = []
        self.alone = False
        self.error: BaseException | None = None
        self._waiting = deque(tasks)

    def work(self, worker: "Worker | None" = None) -> None:
        """Take tasks until none is left; an error leaves none to the others."""
        try:
            with np.errstate(all="ignore"), take() as scratch:
                while worker is None or not self.alone:
                    try:
                        task = self._waiting.popleft()
                    except IndexError:
                        return
                    task(scratch)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Note the first error, and leave no task."""
        self.error = self.error or error
        self._waiting.clear()

    def wait(self) -> None:
        """Wait for the tasks that workers have: at first without sleeping.

        To be woken takes 30 µs. A worker that has not begun, or that is not alive, has none.
        """
        polls = 0
        while any(worker.is_alive() for worker in [*self.workers]):
            time.sleep(0 if polls < POLLS else PAUSE)
            polls += 1


class Worker(threading.Thread):
    """A thread that takes tasks of one job after the other, until it has been idle for long."""

    def __init__(self, place: int) -> None:
        super().__init__(name="gpugrad", daemon=True)
        self._place = place

    def run(self) -> None:
        """Wait for jobs; its buffers go with it."""
        threads.Hold(threads.libraries()).take_own()
        while _workers.get(self._place) is self:
            try:
                job = _jobs.get(timeout=IDLE)
            except queue.Empty:
                return
            job.workers.append(self)  # before it takes a task: see wait
            job.work(self)
            job.workers.remove(self)
            del job  # and the arrays with it


# No lock guards these: a call may be entered anywhere, also in a signal handler.
_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()  # once for each worker that is to wake
_workers: dict[int, Worker] = {}  # by place; one that has lost its place ends
_running: list[_Job] = []


def _start(job: _Job, count: int) -> None:
    """Have so many workers take tasks of a job, or those that the system allows."""
    for place in range(count):
        worker = _workers.get(place)
        if worker is None or not worker.is_alive():
            worker = _workers[place] = Worker(place)
            try:
                worker.start()
            except RuntimeError:  # at the system's limit, or the interpreter's end
                count = place
                break
    for _ in range(count - _jobs.qsize()):
        _jobs.put(job)


def _before_fork() -> None:
    """Let workers complete their tasks for this thread: in the child they would stay undone."""
    for job in [*_running]:
        if job.caller == threading.get_ident():
            job.alone = True
            job.wait()


def _forked() -> None:
    """Forget the parent's workers."""
    global _jobs
    _jobs = queue.SimpleQueue()
    _workers.clear()
    _running[:] = [job for job in _running if job.caller == threading.get_ident()]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_forked)
