"""Putting the driver in place, and what tests ask of it."""

import atexit
import contextlib
import ctypes
import enum
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator

from . import cupy_entries, cupy_sources
from .library import VISIT, Launch, library, start

DEVICES = 2
MEMORY = 4 << 30  # bytes that can be allocated on each


class Order(enum.IntEnum):
    """When work that nothing has ordered is done."""

    LATE = 0  # when something waits for it, the latest first
    EAGER = 1  # at once
    RANDOM = 2  # when something waits for it, in any order


@functools.cache
def install() -> None:
    """Have CuPy, cuda.bindings and cuda.core of this process use the played driver.

    No device is visible until `set_devices` or `visible` says so.
    """
    os.environ.setdefault("CUPY_ACCELERATORS", "")  # CuPy's CUB has a runtime of its own
    library()
    cupy_entries.put_in_place()
    sys.meta_path.insert(0, cupy_sources.Watch)
    start(_run)
    atexit.register(library().played_stop)


def is_installed() -> bool:
    """Return whether CUDA is played in this process."""
    return install.cache_info().currsize > 0


def _run(launch: Launch) -> int:
    from .execution import run

    return run(launch)


def set_devices(
    count: int = DEVICES, *, capability: int = 90, memory: int = MEMORY, peers: bool = True
) -> None:
    """Choose the devices that calls find from now on."""
    library().played_devices(count, capability, memory, peers)
    cupy_entries.PROPERTIES |= zip(("major", "minor"), divmod(capability, 10), strict=True)


@contextlib.contextmanager
def visible(count: int = DEVICES, **options: int) -> Iterator[None]:
    """Provide a machine with GPUs for a while."""
    set_devices(count, **options)
    try:
        yield
    finally:
        set_devices(0)


def set_order(order: Order, seed: int = 0) -> None:
    """Choose when work that nothing has ordered is done."""
    library().played_order(order, seed)


def finish() -> None:
    """Do all work that waits on all devices.

    Raises
    ------
    RuntimeError
        Some of it failed. The devices work again all the same.
    """
    failed = library().played_finish()
    recover()
    if failed:
        raise RuntimeError(f"work that waited has failed ({failed}): {refusals()}")


@contextlib.contextmanager
def idle() -> Iterator[None]:
    """Have launches checked and counted, but not carried out: what is left is the host's time."""
    set_idle()
    try:
        yield
    finally:
        start(_run)
        set_order(Order.LATE)


def set_idle() -> None:
    """Have launches checked and counted, but not carried out, from now on."""
    start(None)
    set_order(Order.EAGER)


def recover() -> None:
    """Make contexts work again that a kernel's failure has lost."""
    library().played_recover()


def refusals() -> list[str]:
    """Return the sentences that say why calls have failed since they were last asked for."""
    text = ctypes.create_string_buffer(1 << 18)
    library().played_refusals(text, len(text))
    return text.value.decode(errors="replace").splitlines()


def calls() -> Counter[str]:
    """Return how often each function of the driver and the runtime has been called."""
    found: Counter[str] = Counter()

    @VISIT
    def visit(name: bytes, count: int) -> None:
        found[name.decode()] = count

    library().played_calls(visit)
    return found
