"""NumPy's BLAS: its number of threads, and what it takes as an operand without a copy."""

import functools
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController

from gpugrad.cpu.scratch import Array


class OneThread:
    """A context in which the BLAS uses one thread, entered by every thread that calls the BLAS.

    The number of threads is the process's own. So those who are in the context are counted, and
    the last of them gives back what the first found. An OpenBLAS upon OpenMP has a number for each
    thread.
    """

    def __init__(self, libraries: Sequence[Any]) -> None:
        self.libraries = libraries
        layers = [getattr(one, "threading_layer", "") for one in libraries]
        self._shared = [a for a, layer in zip(libraries, layers, strict=True) if layer != "openmp"]
        self._own = [a for a, layer in zip(libraries, layers, strict=True) if layer == "openmp"]
        self._lock, self._holders = threading.Lock(), 0
        self._shared_before: list[int] = []
        self._own_before = threading.local()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def __enter__(self) -> None:
        with self._lock:
            if not self._holders:
                self._shared_before = _hold(self._shared)
            self._holders += 1
        if self._own:
            self._own_before.stack = [*getattr(self._own_before, "stack", ()), _hold(self._own)]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._own:
            _give_back(self._own, self._own_before.stack.pop())
        with self._lock:
            self._holders -= 1
            if not self._holders:
                _give_back(self._shared, self._shared_before)

    def _forked(self) -> None:
        """Forget what other threads were doing: they are not in this process."""
        self._lock = threading.Lock()
        if self._holders:
            self._holders = 0
            _give_back(self._shared, self._shared_before)


def _hold(libraries: Sequence[Any]) -> list[int]:
    """Set libraries to one thread and give the numbers that they had."""
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        _let_any_thread_set(library)
        library.set_num_threads(1)
    return before


def _give_back(libraries: Sequence[Any], before: Sequence[int]) -> None:
    for library, threads in zip(libraries, before, strict=True):
        _let_any_thread_set(library)
        library.set_num_threads(threads)
        _let_any_thread_set(library)


def _let_any_thread_set(library: Any) -> None:
    """Have threadpoolctl listen to this thread: since 3.8 it does to the first one that sets."""
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


@functools.cache
def leaves_small_products_alone() -> bool:
    """Say whether the BLAS is known to compute small products on one thread anyway."""
    return all(one.internal_api == "openblas" for one in one_thread().libraries)


_found: dict[str, OneThread] = {}


def one_thread() -> OneThread:
    """Give the context of NumPy's BLAS, and of any other that was loaded at the first call.

    All threads get the same one, also those that come first at the same time: two that counted
    apart would give back each other's one thread.
    """
    found = _found.get("blas")
    if found is None:  # looking takes 0.3 ms
        libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        found = _found.setdefault("blas", OneThread(libraries))
    return found


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
