"""Which cores threads run on.

A virtual machine's halted cores do not look idle to Linux, so that it wakes a thread on the core
of the one that wakes it, and both share it for milliseconds while another is idle: on two cores a
layer of 2048 × 512 × 256 took 5.4 ms after a pause, and 3.0 with each thread on its own.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _find_current() -> Callable[[], int] | None:
    """Give the C library's sched_getcpu where there is one, on Linux."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        function: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return None
    return function


_current = _find_current()


@contextmanager
def kept_on_one() -> Iterator[frozenset[int]]:
    """Keep this thread on the core that it is on; give the others that it may use.

    There are none where the system does not say or does not allow it, and then nothing is kept.
    """
    allowed = os.sched_getaffinity(0) if _current is not None else set()
    here = _current() if _current is not None else -1
    if len(allowed) < 2 or here not in allowed or not move(0, {here}):
        yield frozenset()
        return
    try:
        yield frozenset(allowed - {here})
    finally:
        move(0, allowed)


def move(thread: int, cores: set[int] | frozenset[int]) -> bool:
    """Let a thread, 0 for this one, run on some cores alone; say whether that was possible."""
    try:
        os.sched_setaffinity(thread, cores)
    except OSError:  # forbidden, or the cores have just been taken away
        return False
    return True
