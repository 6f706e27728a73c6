"""Who may use how many threads, and where: NumPy's BLAS, the workers, and the caller's own thread.

The BLAS's own threads are used where their number changes no bit. They spin for some time after a
product and begin the next one at once; to wake a worker takes 30 µs. Each of them computes a piece
of the result, and by OpenBLAS's kernels for AVX-512 an element has the same bits in any piece:
always in float32, and in float64 where the pieces' edges fall on full vectors. Of other kernels,
such as those for AVX2, that is not so. What is left is the cut of a long contraction, which one
thread makes elsewhere than several unless it is of full vectors; see products.multiply_whole.
So kernels, dtype and shape say which products these are, and never a number of threads.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from gpugrad.cpu.arithmetic import FLOAT64
from gpugrad.cpu.scratch import Array, Compute
from gpugrad.errors import ArgumentError

KERNELS = frozenset(("SkylakeX", "Cooperlake", "SapphireRapids"))  # of OpenBLAS, for AVX-512
UNCUT = 256  # of a contraction, which no number of threads cuts
STRETCH = 32  # of a longer one, whose multiples all of them cut at the same places
EDGE = 16  # elements of float64 that no piece's edge divides
UNTHREADED, NARROW = 1 << 18, 96  # multiply-adds and sides that OpenBLAS takes one thread for


def number_of_workers() -> int:
    """Return GPUGRAD_NUM_THREADS, or else the number of cores that this process may use."""
    given = os.environ.get("GPUGRAD_NUM_THREADS")
    if given is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise ArgumentError(f"GPUGRAD_NUM_THREADS is {given!r}, expected a number of threads")
    return int(given)


# ---- the BLAS's threads


class Libraries:
    """The BLAS libraries of the process, and who holds them at one thread, or at a few.

    The number of threads is the process's own. So those who hold it are known: it is the least that
    one of them wants, and the last of them gives back what the first found. An OpenBLAS upon OpenMP
    has a number for each thread.
    """

    def __init__(self, libraries: Sequence[Any]) -> None:
        self.all = libraries
        self.own = [a for a in libraries if getattr(a, "threading_layer", "") == "openmp"]
        self._shared = [a for a in libraries if a not in self.own]
        self.lock = threading.RLock()  # a signal's handler may come here too
        self.holders: set[Hold] = set()
        self._before: list[int] | None = None
        self._set_to = 0  # what holders want, once it is set
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def threads(self) -> int:
        """Return the number of threads that products of this thread may have."""
        return max([one.get_num_threads() for one in self.all], default=1)

    def set_for_holders(self) -> None:
        """Set the number that the holders want, or the one before if there are none."""
        if self.holders:
            if self._before is None:
                self._before = [one.get_num_threads() for one in self._shared]
            least = min(holder.threads for holder in self.holders)
            if least != self._set_to:
                _set(self._shared, [min(least, number) for number in self._before])
                self._set_to = least
        elif self._before is not None:
            _set(self._shared, self._before)
            self._before, self._set_to = None, 0

    def _forked(self) -> None:
        """Forget what other threads were doing: they are not in this process."""
        self.lock = threading.RLock()
        self.holders = set()
        self.set_for_holders()


class Hold:
    """One thread's wish that the BLAS use so many threads, or fewer.

    What is to be given back is noted before anything is changed, and `release` can be called again:
    so a Ctrl-C at any moment loses nothing.
    """

    def __init__(self, libraries: Libraries, threads: int = 1) -> None:
        self.threads = threads
        self._libraries = libraries
        self._own_before: list[int] | None = None

    def take(self) -> None:
        """Have the BLAS use no more threads."""
        libraries = self._libraries
        with libraries.lock:
            libraries.holders.add(self)
            libraries.set_for_holders()
        if libraries.own:
            self._own_before = [one.get_num_threads() for one in libraries.own]
            _set(libraries.own, [min(self.threads, before) for before in self._own_before])

    def release(self) -> None:
        """Give back what this holder, or the last of all, has changed; may be called again."""
        libraries = self._libraries
        if self._own_before is not None:
            _set(libraries.own, self._own_before)
            self._own_before = None
        with libraries.lock:
            libraries.holders.discard(self)
            libraries.set_for_holders()


def _set(libraries: Sequence[Any], threads: Sequence[int]) -> None:
    for library, number in zip(libraries, threads, strict=True):
        # threadpoolctl listens to the first thread that sets, since 3.8, unless it is told not to.
        listen = getattr(library, "clear_controlling_thread", lambda **_: None)
        listen(force=True)
        library.set_num_threads(number)
        listen(force=True)


_found: dict[str, Libraries] = {}


def libraries() -> Libraries:
    """Return NumPy's BLAS, and any other that was loaded at the first call.

    All threads get the same, also those that come first at the same time: two that counted apart
    would give back each other's one thread.
    """
    found = _found.get("blas")
    if found is None:  # looking takes 0.3 ms
        controllers = ThreadpoolController().select(user_api="blas").lib_controllers
        found = _found.setdefault("blas", Libraries(controllers))
    return found


def on_threads(number: int, work: Callable[..., object], *arguments: Any) -> None:
    """Do some work while the BLAS uses so many threads, or fewer."""
    hold = Hold(libraries(), number)
    try:
        hold.take()
        work(*arguments)
        hold.release()
    except BaseException:
        hold.release()  # also where a Ctrl-C has interrupted that
        raise


# ---- products whose bits do not depend on the BLAS's threads


@functools.cache
def leaves_small_products_alone() -> bool:
    """Return whether the BLAS is known to compute small products on one thread anyway."""
    return all(one.internal_api == "openblas" for one in libraries().all)


def is_unthreaded(n: int, k: int, m: int, *, whole: bool) -> bool:
    """Return whether the BLAS computes a layer's products on one thread even if it has more.

    `whole` tells that their bits do not depend on threads: then longer sides are known to be so.
    """
    widest = UNCUT if whole else NARROW
    tiny = n * k * m <= UNTHREADED and n <= widest and k <= widest and m <= widest
    return tiny and leaves_small_products_alone()


def same_bits(n: int, k: int, m: int, dtype: np.dtype[Any]) -> bool:
    """Return whether a layer's products have the same bits on any number of the BLAS's threads.

    Vectors are left out: their products are cut otherwise.
    """
    even = dtype != FLOAT64 or not (k % EDGE or m % EDGE)
    return even and n > 1 and k > 1 and m > 1 and _kernels_agree()


@functools.cache
def _kernels_agree() -> bool:
    """Return whether the BLAS is an OpenBLAS with such kernels."""
    found = libraries().all
    return bool(found) and all(getattr(one, "architecture", "") in KERNELS for one in found)


def allowed(threads: int, dtype: np.dtype[Any]) -> int:
    """Return how many of its threads the BLAS may use for such products.

    GPUGRAD_NUM_THREADS at most; 1 where trying has shown that their bits would not be those of one
    thread after all.
    """
    if threads > 1 and "GPUGRAD_NUM_THREADS" in os.environ:
        threads = min(threads, number_of_workers())
    return threads if _agree(threads, dtype) else 1


def bind(dtype: np.dtype[Any], compute: Compute, on_workers: Compute | None = None) -> Compute:
    """Return what computes such products on as many of the BLAS's threads as there are to be.

    If that is one, it is left to workers where `on_workers` is given.
    """

    def on_blas_threads(*arrays: Any) -> None:
        number = libraries().threads()
        wanted = allowed(number, dtype)
        if wanted == 1 and on_workers is not None:
            on_workers(*arrays)
        elif wanted == number:
            compute(*arrays)
        else:
            on_threads(wanted, compute, *arrays)

    return on_blas_threads


@functools.cache
def _agree(threads: int, dtype: np.dtype[Any]) -> bool:
    """Try whether products have the same bits on so many threads, and in pieces, as on one."""
    if threads == 1:
        return True
    found: list[list[Array]] = []
    for number in (1, threads):
        on_threads(number, lambda: found.append(_products(dtype)))
    one, several = found
    return all(map(np.array_equal, one, several)) and np.array_equal(one[0], one[1])


def _products(dtype: np.dtype[Any]) -> list[Array]:
    """Return the three products of a layer, the first of them by pieces too."""
    random = np.random.default_rng(0)
    n, k, m, piece = 157, 9 * STRETCH, 7 * EDGE, 64
    dz, x, w = (random.random(shape).astype(dtype) for shape in ((n, m), (n, k), (k, m)))
    return [x @ w, np.concatenate([x[:piece] @ w, x[piece:] @ w]), dz @ w.T, x.T @ dz]


# ---- the cores that threads run on


_current: Callable[[], int] | None = None
if hasattr(os, "sched_setaffinity"):
    _current = getattr(ctypes.CDLL(None), "sched_getcpu", None)


class Pin:
    """A way to keep this thread on the core that it is on, and to let it go again.

    A virtual machine's halted cores do not look idle to Linux, so that it wakes a thread on the
    core of the one that wakes it, and both share it for milliseconds while another is idle: on two
    cores a layer of 2048 × 512 × 256 took 5.4 ms after a pause, and 3.0 with a core for each.

    Attributes
    ----------
    others : set of int
        The cores for other threads: those that this thread may use, without its own. Empty where
        there are no others, or the system does not say.
    """

    def __init__(self) -> None:
        self.others: frozenset[int] = frozenset()
        self._allowed: set[int] = set()

    def set(self) -> None:
        """Keep this thread where it is."""
        if _current is None:
            return
        here, self._allowed = {_current()}, os.sched_getaffinity(0)
        self.others = frozenset(self._allowed - here)
        if here < self._allowed:
            move(0, here)

    def undo(self) -> None:
        """Let this thread run where it could before; may be called again."""
        if self._allowed:
            move(0, self._allowed)


def move(thread: int, cores: Set[int]) -> None:
    """Let a thread, 0 for this one, run on some cores alone, if the system allows it."""
    with suppress(OSError):  # forbidden, or the cores have just been taken away
        os.sched_setaffinity(thread, cores)
