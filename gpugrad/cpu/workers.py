"""Tasks on several cores: a pool of worker threads, each with buffers and one BLAS thread.

What the tasks are follows from shapes alone, and each writes a part of the results that no other
does. So neither the number of workers nor who takes which task changes a bit.
"""

import functools
import os
import threading
import time
import weakref
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
POLLS = 100  # with which others are waited for, a microsecond each, before pauses between them
PAUSE = 5e-5  # seconds


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
    job, hold, pin = _Job(tasks), threads.Hold(threads.libraries()), threads.Pin()
    workers: list[Worker] = []
    try:
        hold.take()  # before this thread is kept on a core, for the BLAS may start threads
        if len(tasks) > 1:
            number = min(threads.number_of_workers(), len(tasks))
            _pool(os.getpid()).find(job, number - 1, workers)
        if workers:
            pin.set()
        for worker in workers:
            worker.begin(job, pin.others)
        job.work()
        _settle(job, workers, pin)
        hold.release()
    except BaseException as error:
        job.error = job.error or error
        _settle(job, workers, pin)
        hold.release()
    try:
        if job.error is not None:
            raise job.error
    finally:
        del job  # which would keep the error's frames, and their arrays


def _settle(job: "_Job", workers: "list[Worker]", pin: threads.Pin) -> None:
    """Wait for workers, let them go, and this thread too."""
    for worker in workers:
        worker.wait(job)
    pin.undo()
    for worker in workers:
        worker.job_of = None


class _Job:
    """Tasks, which any number of threads work off together."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.error: BaseException | None = None
        self._waiting = deque(tasks)

    def work(self) -> None:
        """Take tasks until none is left; an error leaves none to the others."""
        try:
            with np.errstate(all="ignore"), take() as scratch:
                while self.error is None:
                    try:
                        task = self._waiting.popleft()
                    except IndexError:
                        return
                    task(scratch)
        except BaseException as error:
            self.error = self.error or error


class Worker(threading.Thread):
    """A thread that waits for jobs.

    Attributes
    ----------
    job_of : weak reference to a job, or None
        For whom it works or is about to. One whose job is no more is free.
    """

    def __init__(self) -> None:
        super().__init__(name="gpugrad", daemon=True)
        self.job_of: weakref.ref[_Job] | None = None
        self._awake = threading.Lock()
        self._awake.acquire()
        self._job: _Job | None = None
        self._on: frozenset[int] = frozenset()

    @property
    def is_free(self) -> bool:
        """Whether nobody's job is or will be its."""
        return self._job is None and (self.job_of is None or self.job_of() is None)

    def begin(self, job: _Job, on: frozenset[int]) -> None:
        """Work on a job, on some cores, or where it is if none are named."""
        if on and on != self._on:
            threads.move(self.native_id or 0, on)
            self._on = on
        self._job = job
        self._awake.release()

    def wait(self, job: _Job) -> None:
        """Wait until it no longer works on the job: at first without sleeping.

        To be woken takes 30 µs.
        """
        polls = 0
        while self._job is job:
            time.sleep(0 if polls < POLLS else PAUSE)
            polls += 1

    def run(self) -> None:
        """Work on one job after the other."""
        while True:
            self._awake.acquire()
            job = self._job
            assert job is not None
            threads.on_threads(1, job.work)
            del job  # and the arrays with it
            self._job = None


class ThreadPool:
    """The workers of a process: as many as a call has asked for, at most."""

    def __init__(self) -> None:
        self._members: list[Worker] = []
        self._lock = threading.RLock()

    def find(self, job: _Job, count: int, found: list[Worker]) -> None:
        """Add to the list so many workers, or those that are free, for a job."""
        with self._lock:
            for worker in self._members:
                if len(found) < count and worker.is_free:
                    worker.job_of = weakref.ref(job)
                    found.append(worker)
            while len(found) < count and len(self._members) < count:
                worker = Worker()
                worker.job_of = weakref.ref(job)
                try:
                    worker.start()
                except RuntimeError:  # at the system's limit, or the interpreter's end
                    return
                finally:
                    if worker.ident is not None:
                        self._members.append(worker)
                found.append(worker)


@functools.cache
def _pool(process: int) -> ThreadPool:
    """Keep threads from call to call, in each process: after a fork, a parent's are not there."""
    return ThreadPool()
