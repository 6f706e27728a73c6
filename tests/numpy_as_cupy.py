"""A stand-in for CuPy on NumPy: enough of it for the measurements to run without a GPU."""

import ctypes
import re
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

L2_BYTES = 1 << 16


class Array(np.ndarray):
    """An array with a pointer, which knows how to be copied to."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(
            ptr=self.ctypes.data,
            copy_from_host=lambda address, size: ctypes.memmove(self.ctypes.data, address, size),
        )


class Event:
    """A point in time; nothing here is asynchronous."""

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass


class Graph:
    """Notes its launches. What it replays has been computed when it was captured."""

    launches = 0

    def launch(self, stream: Any = None) -> None:
        Graph.launches += 1

    def upload(self, stream: Any = None) -> None:
        pass


class Stream:
    """A stream that works when it is told to."""

    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        self.capturing = False

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        assert not self.capturing

    def synchronize(self) -> None:
        assert not self.capturing

    def begin_capture(self) -> None:
        self.capturing = True

    def end_capture(self) -> Graph:
        self.capturing = False
        return Graph()


class Device:
    """The only device."""

    id = 0

    def synchronize(self) -> None:
        pass


def elementwise_kernel(inputs: str, output: str, code: str, name: str) -> Any:
    """Run the one assignment of a kernel on arrays of the type that it computes in."""
    names = re.findall(r"T (\w+)", inputs)
    wide, expression = re.findall(r"const (\w+) ", code)[0], re.findall(r"= T\((.*)\);", code)[0]
    assert re.fullmatch(r"T \w+", output)
    assert name.isidentifier()

    def run(*arrays: Any) -> Any:
        dtype = np.float64 if wide == "double" else np.float32
        values = {f"{one}_": a.astype(dtype) for one, a in zip(names, arrays, strict=True)}
        return eval(expression, {"exp": np.exp}, values).astype(arrays[0].dtype).view(Array)

    return run


def module() -> Any:
    """Give the module `cupy`."""
    cupy: Any = ModuleType("cupy")
    cupy.ndarray = Array
    cupy.ElementwiseKernel = elementwise_kernel
    cupy.asnumpy = np.asarray
    for name in ("empty", "full", "ones", "zeros", "asarray"):
        make = getattr(np, name)
        setattr(cupy, name, lambda *given, make=make: make(*given).view(Array))
    for name in ("square", "sqrt", "exp"):
        setattr(cupy, name, getattr(np, name))
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    cupy.cuda = SimpleNamespace(
        Device=Device,
        Event=Event,
        Stream=Stream,
        get_current_stream=Stream,
        get_elapsed_time=lambda before, after: 1e3 * (after.time - before.time) + 1e-6,
        set_allocator=lambda allocator: None,
        runtime=SimpleNamespace(
            memcpyDeviceToDevice=3,
            memcpyAsync=lambda to, source, size, kind, stream: ctypes.memmove(to, source, size),
            memGetInfo=lambda: (1 << 32, 1 << 33),
            getDeviceProperties=lambda device: {"name": b"NumPy", "l2CacheSize": L2_BYTES},
        ),
    )
    return cupy
