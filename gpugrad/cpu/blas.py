"""NumPy's BLAS: its number of threads, and what it takes as an operand without a copy."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from threadpoolctl import ThreadpoolController

from gpugrad.cpu.scratch import Array


class Libraries:
    """The BLAS libraries of the process, and who holds them at one thread, or at a few.

    The number of threads is the process's own. So those who hold it are known: it is the least that
    one of them wants, and the last of them gives back what the first found. An OpenBLAS upon OpenMP
    has a number for each thread.

    What is to be given back is noted before anything is changed, and `release` can be called again:
    so a Ctrl-C at any moment loses nothing.
    """

    def __init__(self, libraries: Sequence[Any]) -> None:
        self.all = libraries
        layers = [getattr(one, "threading_layer", "") for one in libraries]
        self._shared = [a for a, layer in zip(libraries, layers, strict=True) if layer != "openmp"]
        self._own = [a for a, layer in zip(libraries, layers, strict=True) if layer == "openmp"]
        self._lock = threading.RLock()  # a signal's handler may come here too
        self._holders: set[Hold] = set()
        self._before: list[int] | None = None
        self._set_to = 0  # what holders want, once it is set
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def threads(self) -> int:
        """Give the number of threads that products of this thread may have."""
        return max([one.get_num_threads() for one in self.all], default=1)

    def take(self, holder: "Hold") -> None:
        """Set all to as many threads as a holder wants, or to fewer."""
        with self._lock:
            if self._before is None:
                self._before = [one.get_num_threads() for one in self._shared]
            self._holders.add(holder)
            self._set_least(self._before)
        if self._own:
            holder.own_before = [one.get_num_threads() for one in self._own]
            _set(self._own, [min(holder.threads, before) for before in holder.own_before])

    def release(self, holder: "Hold") -> None:
        """Give back what this holder, or the last of all, has changed."""
        if holder.own_before is not None:
            _set(self._own, holder.own_before)
            holder.own_before = None
        with self._lock:
            self._holders.discard(holder)
            if self._before is None:
                return
            if self._holders:
                self._set_least(self._before)
            else:
                self._give_back(self._before)

    def _set_least(self, before: list[int]) -> None:
        least = min(holder.threads for holder in self._holders)
        if least != self._set_to:
            _set(self._shared, [min(least, number) for number in before])
            self._set_to = least

    def _give_back(self, before: list[int]) -> None:
        _set(self._shared, before)
        self._before, self._set_to = None, 0

    def _forked(self) -> None:
        """Forget what other threads were doing: they are not in this process."""
        self._lock = threading.RLock()
        self._holders = set()
        if self._before is not None:
            self._give_back(self._before)


class Hold:
    """One thread's wish that the BLAS use one thread, or a few.

    Attributes
    ----------
    threads : int
        As many.
    own_before : list of int or None
        What is to be given back to an OpenBLAS that has a number for each thread.
    """

    def __init__(self, libraries: Libraries, threads: int = 1) -> None:
        self.threads = threads
        self.own_before: list[int] | None = None
        self._libraries = libraries

    def take(self) -> None:
        """Have the BLAS use no more threads."""
        self._libraries.take(self)

    def release(self) -> None:
        """Give back what has been taken, if anything has; may be called again."""
        self._libraries.release(self)


def _set(libraries: Sequence[Any], threads: Sequence[int]) -> None:
    for library, number in zip(libraries, threads, strict=True):
        _let_any_thread_set(library)
        library.set_num_threads(number)
        _let_any_thread_set(library)


def _let_any_thread_set(library: Any) -> None:
    """Have threadpoolctl listen to this thread: since 3.8 it does to the first one that sets."""
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


@functools.cache
def leaves_small_products_alone() -> bool:
    """Say whether the BLAS is known to compute small products on one thread anyway."""
    return all(one.internal_api == "openblas" for one in libraries().all)


_found: dict[str, Libraries] = {}


def libraries() -> Libraries:
    """Give NumPy's BLAS, and any other that was loaded at the first call.

    All threads get the same, also those that come first at the same time: two that counted apart
    would give back each other's one thread.
    """
    found = _found.get("blas")
    if found is None:  # looking takes 0.3 ms
        controllers = ThreadpoolController().select(user_api="blas").lib_controllers
        found = _found.setdefault("blas", Libraries(controllers))
    return found


def on_one_thread(work: Callable[[], object]) -> None:
    """Do some work while the BLAS uses one thread."""
    on_threads(1, work)


def on_threads(number: int, work: Callable[[], object]) -> None:
    """Do some work while the BLAS uses so many threads, or fewer."""
    hold = Hold(libraries(), number)
    try:
        hold.take()
        work()
        hold.release()
    except BaseException:
        hold.release()  # also where a Ctrl-C has interrupted that
        raise


def takes(matrix: Array, dtype: Any) -> bool:
    """Say whether the BLAS reads (or writes) a matrix where it is, of the dtype to compute in."""
    if matrix.dtype != dtype:
        return False
    flags = matrix.flags
    if flags.c_contiguous or flags.f_contiguous:
        return bool(flags.aligned)
    (down, across), (rows, columns), size = matrix.strides, matrix.shape, matrix.itemsize
    if down % size or across % size or not flags.aligned:
        return False
    return bool(
        (across == size and down >= columns * size) or (down == size and across >= rows * size)
    )
