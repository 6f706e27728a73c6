"""Which cores threads run on.

A virtual machine's halted cores do not look idle to Linux, so that it wakes a thread on the core
of the one that wakes it, and both share it for milliseconds while another is idle: on two cores a
layer of 2048 × 512 × 256 took 5.4 ms after a pause, and 3.0 with each thread on its own.
"""

import ctypes
import os
from collections.abc import Callable, Set
from contextlib import suppress


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


class Pin:
    """A way to keep this thread on the core that it is on, and to let it go again.

    Attributes
    ----------
    others : set of int
        The cores for other threads: those that this thread may use, without its own where it has
        several. Empty where the system does not say.
    """

    def __init__(self) -> None:
        self._allowed = os.sched_getaffinity(0) if _current is not None else set()
        here = _current() if _current is not None else -1
        self._here = {here} if len(self._allowed) > 1 and here in self._allowed else set()
        self.others = frozenset(self._allowed - self._here)

    def set(self) -> None:
        """Keep this thread where it is."""
        if self._here:
            move(0, self._here)

    def undo(self) -> None:
        """Let this thread run where it could before; may be called again."""
        if self._here:
            move(0, self._allowed)


def move(thread: int, cores: Set[int]) -> None:
    """Let a thread, 0 for this one, run on some cores alone, if the system allows it."""
    with suppress(OSError):  # forbidden, or the cores have just been taken away
        os.sched_setaffinity(thread, cores)
