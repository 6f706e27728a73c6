"""NumPy's BLAS: its number of threads, and what it takes as an operand without a copy."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from threadpoolctl import ThreadpoolController

from gpugrad.cpu.scratch import Array


class Libraries:
    """The BLAS libraries of the process, and who holds them at one thread.

    The number of threads is the process's own. So those who hold it are known, and the last of them
    gives back what the first found. An OpenBLAS upon OpenMP has a number for each thread.

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
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def take(self, holder: "Hold") -> None:
        """Set all to one thread for a holder."""
        with self._lock:
            if self._before is None:
                self._before = [one.get_num_threads() for one in self._shared]
            if not self._holders:
                _set(self._shared, [1] * len(self._shared))
            self._holders.add(holder)
        if self._own:
            holder.own_before = [one.get_num_threads() for one in self._own]
            _set(self._own, [1] * len(self._own))

    def release(self, holder: "Hold") -> None:
        """Give back what this holder, or the last of all, has changed."""
        if holder.own_before is not None:
            _set(self._own, holder.own_before)
            holder.own_before = None
        with self._lock:
            self._holders.discard(holder)
            if not self._holders and self._before is not None:
                _set(self._shared, self._before)
                self._before = None

    def _forked(self) -> None:
        """Forget what other threads were doing: they are not in this process."""
        self._lock = threading.RLock()
        self._holders = set()
        if self._before is not None:
            _set(self._shared, self._before)
            self._before = None


class Hold:
    """One thread's wish that the BLAS use one thread."""

    def __init__(self, libraries: Libraries) -> None:
        self.own_before: list[int] | None = None
        self._libraries = libraries

    def take(self) -> None:
        """Have the BLAS use one thread."""
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
    hold = Hold(libraries())
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
