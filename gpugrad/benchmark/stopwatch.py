"""The time that work takes on a device."""

import time
from types import TracebackType
from typing import Any, Self


class Stopwatch:
    """Adds up the seconds of the blocks that it is the context of.

    On a GPU the time is that between two events on the current stream, and the block ends when
    the second has happened: the work is done, not merely launched.

    Parameters
    ----------
    device : {"cpu", "gpu"}

    Attributes
    ----------
    last, total : float
        Seconds of the last block and of all.
    """

    def __init__(self, device: str) -> None:
        self.last = self.total = 0.0
        self._cuda: Any = None
        self._start: Any = None
        if device == "gpu":
            import cupy

            self._cuda = cupy.cuda

    def __enter__(self) -> Self:
        if self._cuda is None:
            self._start = time.perf_counter()
        else:
            self._start = self._cuda.Event()
            self._start.record()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cuda is None:
            self.last = time.perf_counter() - self._start
        else:
            end = self._cuda.Event()
            end.record()
            end.synchronize()
            self.last = 1e-3 * self._cuda.get_elapsed_time(self._start, end)
        self.total += self.last
