"""CuPy's own arrays where there is no GPU: in the host's memory, with stand-ins for CUDA.

Arrays, their attributes, views and constructors are CuPy's, and cost what they cost. Replaced is
what asks the driver or the runtime: the current device and stream, whether it is captured, memory,
and the launch. Each stand-in is a Python function, which costs about what CuPy's own part of such a
call does. The stand-in for CuPy's pool gives addresses beyond what a process can have. Nothing is
computed.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cupy
import numpy as np
from cupy.cuda import MemoryPointer, UnownedMemory

from gpugrad import _dispatch, _repeats
from gpugrad.gpu import captures, replay, tensor_maps
from gpugrad.gpu.cupy_runtime import CupyRuntime
from gpugrad.gpu_costs import DeviceFacts

ALIGNMENT = 512  # of CuPy's pool
FIRST_ADDRESS = 1 << 50  # beyond all that a process of today can have
H200 = DeviceFacts("H200, played", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30)


class Driver:
    """The state that the stand-ins show; tests change it.

    Attributes
    ----------
    device : int
        The current one.
    stream : SimpleNamespace
        The current one, with its `ptr`.
    captured : dict
        Numbers of captures, by the pointers of the streams that they capture.
    gives_back : bool
        Whether memory that nobody holds any more is given again, as CuPy's pool does: the last that
        came back of a size first.
    """

    def __init__(self) -> None:
        self.device = 0
        self.stream = SimpleNamespace(ptr=0)
        self.captured: dict[int, int | None] = {}
        self.gives_back = False
        self._back: defaultdict[int, list[int]] = defaultdict(list)  # addresses by their sizes
        self._free = FIRST_ADDRESS

    def allocate(self, size: int) -> Any:
        """Give memory, as CuPy's pool would."""
        size += -size % ALIGNMENT
        back, holder = self._back[size], None
        if back and self.gives_back:
            where = back.pop()
        else:
            where = self._free
            self._free += size
        if self.gives_back:
            holder = Held(back, where)
        return MemoryPointer(UnownedMemory(where, size, holder, self.device), 0)

    def launch(self, *_: int) -> None:
        """Launch nothing: the place of cuLaunchKernel and of CuPy's function that calls it."""

    def runtime(self) -> Any:
        """Give the runtime with kernels that are not there."""
        return Runtime()


class Held:
    """Memory that somebody holds."""

    __slots__ = ("back", "where")

    def __init__(self, back: list[int], where: int) -> None:
        self.back, self.where = back, where

    def __del__(self) -> None:
        self.back.append(self.where)


class Device:
    """A device that can be made current, which changes nothing."""

    def __init__(self, index: int = 0) -> None:
        self.id = index

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@functools.lru_cache(maxsize=tensor_maps.REMEMBERED)
def encoded(*_: Any) -> bytes:
    """Give a tensor map that maps nothing; like those of the driver, remembered by address."""
    return bytes(128)


class Kernel:
    """A kernel that does nothing, in the place of CuPy's RawKernel."""

    def __init__(self, number: int) -> None:
        self.kernel = SimpleNamespace(ptr=number)

    def __call__(self, grid: Any, block: Any, args: Any, **options: Any) -> None:
        """Do nothing, where CuPy would marshal the arguments and launch."""


class Runtime(CupyRuntime):
    """CuPy's runtime with kernels that are not there."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Describe a GPU."""
        return H200

    def kernel(
        self, stem: str, function: str, defines: tuple[str, ...], shared_bytes: int = 0
    ) -> Any:
        """Give a kernel that does nothing."""
        return _kernel(stem, function, defines, shared_bytes)


@functools.cache
def _kernel(*name: Any) -> Any:
    kernel, shared = Kernel(_kernel.cache_info().misses), name[-1]
    return functools.partial(kernel, shared_mem=shared) if shared else kernel


@contextlib.contextmanager
def stand_ins(driver: Driver | None = None) -> Iterator[Driver]:
    """Put the stand-ins in place, and forget what was remembered before and in between."""
    driver = driver or Driver()
    with contextlib.ExitStack() as stack:
        for place, name, value in (
            (cupy.cuda, "Device", Device),
            (cupy.cuda, "get_current_stream", lambda: driver.stream),
            (cupy.cuda.runtime, "getDevice", lambda: driver.device),
            (cupy.cuda.runtime, "streamIsCapturing", lambda stream: stream in driver.captured),
            (captures, "_capture", lambda stream: driver.captured[stream]),
            (captures, "of_graphs", {}),
            (tensor_maps, "encode", encoded),
            (cupy.cuda.driver, "launchKernel", lambda *args: driver.launch(*args)),
        ):
            stack.enter_context(mock.patch.object(place, name, value))
        runtime = mock.Mock(return_value=driver.runtime())
        stack.enter_context(mock.patch.object(_dispatch, "runtime", runtime))
        stack.enter_context(mock.patch.object(_repeats, "find_on_gpu", replay.find))
        stack.callback(cupy.cuda.set_allocator, cupy.cuda.get_allocator())
        cupy.cuda.set_allocator(driver.allocate)
        stack.callback(_repeats.forget)
        _repeats.forget()
        yield driver


def array(like: np.ndarray[Any, Any]) -> Any:
    """View a NumPy array's memory as a CuPy array."""
    low, high = np.lib.array_utils.byte_bounds(like)
    memory = UnownedMemory(low, max(1, high - low), like, 0)
    start = MemoryPointer(memory, like.ctypes.data - low)
    return cupy.ndarray(like.shape, like.dtype, start, like.strides)
