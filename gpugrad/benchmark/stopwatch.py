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
    host : float
        Seconds of the last block on the host, on a GPU until its work was launched.
    """

    def __init__(self, device: str) -> None:
        self.last = self.total = self.host = 0.0
        self._cuda: Any = None
        self._event: Any = None
        self._start = 0.0
        if device == "gpu":
            import cupy

            self._cuda = cupy.cuda

    def __enter__(self) -> Self:
        if self._cuda is not None:
            self._event = self._cuda.Event()
            self._event.record()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.last = self.host = time.perf_counter() - self._start
        if self._cuda is not None:
            end = self._cuda.Event()
            end.record()
            end.synchronize()
            self.last = 1e-3 * self._cuda.get_elapsed_time(self._event, end)
        self.total += self.last
