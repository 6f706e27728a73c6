"""How many threads a call may use: workers, or those of NumPy's BLAS.

BLAS threads are used where results are bitwise independent of their number. They spin for some time
after a product and begin the next one at once; to wake a worker takes 30 µs. Each of them computes
a piece of the result, and by OpenBLAS's kernels for AVX-512 an element has the same bits in any
piece: always in float32, and in float64 where the pieces' edges fall on full vectors. Of other
kernels, such as those for AVX2, that is not so. What is left is the cut of a long contraction,
which one thread makes elsewhere than several unless it is of full vectors; see
products.multiply_whole. So kernels, dtype and shape say which products these are, and never a
number of threads.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from gpugrad import host
from gpugrad.cpu.arithmetic import FLOAT64
from gpugrad.cpu.scratch import Array, Compute
from gpugrad.errors import ArgumentError

KERNELS = frozenset(("SkylakeX", "Cooperlake", "SapphireRapids"))  # of OpenBLAS, for AVX-512
UNCUT = 256  # of a contraction, which no number of threads cuts
STRETCH = 32  # of a longer one, whose multiples all of them cut at the same places
EDGE = 16  # elements of float64 that no piece's edge divides
UNTHREADED, NARROW = 1 << 18, 96  # multiply-adds and sides that OpenBLAS takes one thread for
PATIENCE = 0.2  # seconds to wait for another thread that sets the BLAS's threads, which takes 10 µs


def number_of_workers() -> int:
    """Return GPUGRAD_NUM_THREADS, or else the least of what limits this process."""
    return _setting() or min(limits().values())


def limits() -> dict[str, int]:
    """Return what limits the threads of a call, and to how many; GPUGRAD_NUM_THREADS overrides."""
    given = _setting()
    if given:
        return {"GPUGRAD_NUM_THREADS": given}
    found = {"affinity": host.cores()}
    quota, number = host.cpu_quota(), libraries().threads()
    if quota is not None:
        found["CPU quota"] = quota
    if number is not None:
        found["BLAS"] = number
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; also set by -X cpu_count
        found["PYTHON_CPU_COUNT"] = os.process_cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT"):
        told = host.variable(name)
        if told and name not in found:
            outermost = told.split(",")[0].strip()  # of nested levels
            if outermost.isdecimal():
                found[name] = max(1, int(outermost))
    return found


def _setting() -> int | None:
    """Return GPUGRAD_NUM_THREADS, or None where it is not set or empty."""
    given = host.variable("GPUGRAD_NUM_THREADS")
    if given is None:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise ArgumentError(f"GPUGRAD_NUM_THREADS is {given!r}, expected a number of threads")
    return int(given)


# ---- the BLAS's threads


class Libraries:
    """The BLAS libraries of the process, and the holds that limit their threads.

    The number of threads is the process's own: it is the least of all holds, and what others set
    where there is none. It is taken back only where it is still as it was set here. An OpenBLAS on
    OpenMP has a number for each thread, which is OpenMP's.

    Parameters
    ----------
    blas, openmp : sequences of threadpoolctl's controllers
    """

    def __init__(self, blas: Sequence[Any], openmp: Sequence[Any] = ()) -> None:
        self.all = blas
        on_openmp = [
            one
            for one in blas
            if getattr(one, "threading_layer", "") == "openmp" and one.internal_api == "openblas"
        ]
        self.own = on_openmp and (openmp or on_openmp)
        self._shared = [one for one in blas if one not in on_openmp]
        self._set_to: dict[int, tuple[int, set[int]]] = {}  # by place: before, and as set here
        self.holds: set[Hold] = set()
        self.lock = threading.RLock()  # a signal handler may come here too
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def threads(self) -> int | None:
        """Return how many threads others let products of this thread have; None if not known.

        One thread is what BLIS has where nobody has set a number.
        """
        found = [one.get_num_threads() for one in self.own]
        for place, library in enumerate(self._shared):
            number = self._before(place, library.get_num_threads())
            if number > 1 or library.internal_api != "blis":
                found.append(number)
        return max(found, default=None)

    def set(self, hold: "Hold", *, held: bool) -> None:
        """Begin or end a hold, and set the number of threads for those there are then.

        The lock's owner may be a thread that a signal handler has interrupted, perhaps to wait for
        this one, or that does not run any more: so it is not waited for without end.
        """
        lock, locked = self.lock, False  # another one after a fork
        try:
            locked = not sys.is_finalizing() and lock.acquire(timeout=PATIENCE)
            (self.holds.add if held else self.holds.discard)(hold)
            self._set_for_holds()
        finally:
            if locked:
                lock.release()

    def _set_for_holds(self) -> None:
        least = min([hold.threads for hold in self.holds], default=None)
        for place, library in enumerate(self._shared):
            now = library.get_num_threads()
            before = self._before(place, now)
            wanted = before if least is None else min(least, before)
            if now != wanted:
                self._set_to[place] = before, {now, wanted}  # a Ctrl-C may come in between
                _set(library, wanted)
            if least is None:
                self._set_to.pop(place, None)
            else:
                self._set_to[place] = before, {wanted}

    def _before(self, place: int, now: int) -> int:
        """Return the number of threads that a library has but for holds."""
        before, ours = self._set_to.get(place, (now, ()))
        return before if now in ours else now

    def _forked(self) -> None:
        """Forget the holds of threads that are not in this process."""
        self.lock = threading.RLock()
        self.holds = {hold for hold in self.holds if hold.thread == threading.get_ident()}
        self._set_for_holds()


class Hold:
    """One thread's limit for the BLAS's threads.

    What is to be given back is noted before anything is changed, and `release` can be called again:
    so a Ctrl-C at any moment loses nothing.
    """

    def __init__(self, libraries: Libraries, threads: int = 1) -> None:
        self.threads, self.thread = threads, threading.get_ident()
        self._libraries = libraries
        self._own_before: list[int] = []

    def take(self) -> None:
        """Have the BLAS use no more threads."""
        self._libraries.set(self, held=True)
        self.take_own()

    def take_own(self) -> None:
        """Limit a number that is this thread's own, and nothing else."""
        self._own_before = [one.get_num_threads() for one in self._libraries.own]
        for one, before in zip(self._libraries.own, self._own_before, strict=True):
            if before > self.threads:
                _set(one, self.threads)

    def release(self) -> None:
        """Restore what has been changed and is still as set; may be called again."""
        for one, before in zip(self._libraries.own, self._own_before, strict=False):
            if before > self.threads == one.get_num_threads():
                _set(one, before)
        self._libraries.set(self, held=False)


def _set(library: Any, threads: int) -> None:
    # threadpoolctl listens to the first thread that sets, since 3.8, unless it is told not to.
    listen = getattr(library, "clear_controlling_thread", lambda **_: None)
    listen(force=True)
    library.set_num_threads(threads)
    listen(force=True)


_found: dict[str, Libraries] = {}


def libraries() -> Libraries:
    """Return NumPy's BLAS, and any other that was loaded at the first call.

    All threads get the same, also those that come first at the same time: two that counted apart
    would give back each other's one thread.
    """
    found = _found.get("blas")
    if found is None:  # looking takes 0.3 ms
        loaded = ThreadpoolController()
        blas, openmp = (loaded.select(user_api=api).lib_controllers for api in ("blas", "openmp"))
        found = _found.setdefault("blas", Libraries(blas, openmp))
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

    As many as a call may use at most; 1 where trying has shown that their bits would not be those
    of one thread after all.
    """
    threads = min(threads, number_of_workers()) if threads > 1 else 1
    return threads if _agree(threads, dtype) else 1


def bind(dtype: np.dtype[Any], compute: Compute, on_workers: Compute | None = None) -> Compute:
    """Return what computes such products on as many of the BLAS's threads as there are to be.

    If that is one, it is left to workers where `on_workers` is given.
    """

    def on_blas_threads(*arrays: Any) -> None:
        number = libraries().threads() or 1
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
