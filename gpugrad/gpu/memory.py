"""Streams and memory of calls on a GPU: results and workspaces.

Results and workspaces come from the allocator of the arrays' framework, which knows the stream on
which their memory is used.

A workspace is released once the call is launched: only later work on the same stream can reuse its
memory. A CUDA graph, however, writes its workspaces in every replay, on any stream, and CuPy's pool
does not know graphs. So a workspace that a captured call takes from CuPy's pool is never released.
Calls that one thread captures on one stream replay in order, and share a workspace. Otherwise the
graph of a network would hold the workspaces of all its layers.
"""

import sys
import threading
from typing import Any

import cupy
from cupy import cuda

from gpugrad.errors import DeviceError
from gpugrad.gpu.launches import MISALIGNED

NEVER_CAPTURED = (0, 1)  # the legacy default stream, by either of its names

of_graphs: dict[Any, list[tuple[int, Any]]] = {}  # bytes and memory, by capture, stream and thread


class CupyMemory:
    """Memory from CuPy's pool, on CuPy's current stream."""

    def stream(self) -> int:
        """Return the current stream."""
        return int(cuda.get_current_stream().ptr)

    def result(self, shape: tuple[int, ...], dtype: Any, order: str) -> tuple[Any, int]:
        """Allocate an array on the current device; return it and its address."""
        array = cupy.ndarray(shape, dtype, None, None, order)
        if array.data.ptr & MISALIGNED:  # from a custom allocator
            memory = _aligned(array.nbytes)
            array = cupy.ndarray(shape, dtype, memory, None, order)
        return array, array.data.ptr

    def workspace(self, size: int, stream: int) -> tuple[Any, int]:
        """Allocate bytes on the current device; return their owner and their address."""
        memory = _workspace(size, stream)
        return memory, memory.ptr


class TorchMemory:
    """Memory from PyTorch's allocator, on PyTorch's current stream; it supports graphs."""

    def __init__(self, device: int) -> None:
        self._torch: Any = sys.modules["torch"]
        self._index, self._device = device, f"cuda:{device}"
        self._dtypes: dict[Any, Any] = {}  # NumPy's: PyTorch's

    def stream(self) -> int:
        """Return the current stream."""
        return int(self._torch.cuda.current_stream(self._index).cuda_stream)

    def result(self, shape: tuple[int, ...], dtype: Any, order: str) -> tuple[Any, int]:
        """Allocate a tensor; return it and its address."""
        kind = self._dtypes.get(dtype)
        if kind is None:
            kind = self._dtypes.setdefault(dtype, getattr(self._torch, dtype.name))
        if order == "F":
            tensor = self._torch.empty(shape[::-1], dtype=kind, device=self._device).t()
        else:
            tensor = self._torch.empty(shape, dtype=kind, device=self._device)
        return tensor, _expect_aligned(tensor.data_ptr())

    def workspace(self, size: int, stream: int) -> tuple[Any, int]:
        """Allocate bytes; return their owner and their address."""
        tensor = self._torch.empty(size, dtype=self._torch.uint8, device=self._device)
        return tensor, _expect_aligned(tensor.data_ptr())


def _expect_aligned(where: int) -> int:
    if where & MISALIGNED:
        raise DeviceError("PyTorch's allocator returned memory that is not aligned to 16 bytes")
    return where


def _aligned(size: int) -> Any:
    """Allocate bytes at a multiple of 16, with any allocator."""
    memory = cuda.alloc(size)
    if memory.ptr & MISALIGNED:
        memory = cuda.alloc(size + MISALIGNED)
        memory += -memory.ptr & MISALIGNED
    return memory


def _workspace(size: int, stream: int) -> Any:
    if stream in NEVER_CAPTURED or not cuda.runtime.streamIsCapturing(stream):
        return _aligned(size)
    number = capture_number(stream)
    kept = of_graphs.setdefault((number, stream, threading.get_ident()), [])
    for known, memory in kept:
        if known >= size and number is not None:
            return memory
    memory = _aligned(size)
    kept.append((size, memory))
    return memory


def capture_number(stream: int) -> int | None:
    """Return the unique ID of a stream's capture; None if it is unknown."""
    from cuda.bindings import driver

    status, _, number, *_ = driver.cuStreamGetCaptureInfo(driver.CUstream(stream))
    return None if status else int(number)
