"""The kinds of arrays: their devices and streams, views without a copy, results of their kind.

A kind is recognised by the modules in `sys.modules`: a CuPy array cannot exist before CuPy is
imported. No framework is imported here, except CuPy for an array of unknown type on a GPU.

An array of unknown type with an array API namespace has its type as its kind, and the namespace
makes the results. Any other array of unknown type counts as NumPy or CuPy by its device.
"""

import functools
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from gpugrad.arrays import protocols
from gpugrad.arrays.view import (
    ArrayView,
    DeviceUnavailable,
    Unsupported,
    imported_cupy,
    unsupported_if_it_fails,
)

DTYPES = ("float64", "float32", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")  # computed in float32, rounded once
LEGACY = 1  # CUDA's default stream; 0 in CuPy
JAX_ALIGNMENT = 64  # bytes; JAX adopts host memory of this alignment without a copy

NUMPY = (np.ndarray, np.generic)
CLASSES = (("cupy", "ndarray", "CuPy"), ("torch", "Tensor", "PyTorch"), ("jax", "Array", "JAX"))
KINDS = ("NumPy", *(kind for _, _, kind in CLASSES))


def kind_of(value: object) -> str | None:
    """Return the kind of `value`, None if it is no array; raise Unsupported if that is unclear."""
    if isinstance(value, NUMPY):
        return "NumPy"
    kind = _kind_by_class(value)
    if kind is None and protocols.exports_memory(value):
        if protocols.namespace_of(value) is not None:
            return _name_of_type(value)
        return "NumPy" if protocols.memory_device(value) == "cpu" else "CuPy"
    return kind


def describe(kind: str, value: object = None) -> str:
    """Return a kind with its article, and the type of a value that is of another class."""
    if kind not in KINDS:
        return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    known = value is None or isinstance(value, NUMPY) or _kind_by_class(value) is not None
    return f"a {kind} array" + ("" if known else f" ({_name_of_type(value)})")


def _kind_by_class(value: object) -> str | None:
    for module_name, class_name, kind in CLASSES:
        module = sys.modules.get(module_name)
        known = getattr(module, class_name, None)
        if known is not None and isinstance(value, known):
            return kind
    return None


def torch_classes() -> tuple[type, ...]:
    """Return the classes of PyTorch's plain tensors."""
    torch: Any = sys.modules.get("torch")
    found = (getattr(torch, "Tensor", None), getattr(getattr(torch, "nn", None), "Parameter", None))
    return tuple(one for one in found if one is not None)


def _name_of_type(value: object) -> str:
    package = type(value).__module__.partition(".")[0]
    return f"{package} {type(value).__name__}"


@functools.cache
def is_supported(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is supported."""
    return dtype.name in DTYPES


def device_of(value: Any, kind: str) -> str:
    """Return the device of an array: "cpu" or "gpu:<index>"."""
    if kind == "NumPy":
        return "cpu"
    with unsupported_if_it_fails():
        if kind == "PyTorch":
            if value.device.type == "cpu":
                return "cpu"
            if value.device.type != "cuda":
                raise Unsupported(f"is on device {value.device}, expected the CPU or a CUDA GPU")
            return f"gpu:{value.device.index}"
        if kind == "JAX":
            device = _jax_device(value)
            return "cpu" if device.platform == "cpu" else f"gpu:{device.local_hardware_id}"
        if _kind_by_class(value) == "CuPy":
            return f"gpu:{value.device.id}"
        return protocols.memory_device(value)


@contextmanager
def device_context(kind: str, device: str) -> Iterator[None]:
    """Make a device current, and for PyTorch's tensors PyTorch's current stream."""
    if device == "cpu":
        yield
        return
    index = int(device[4:])
    with imported_cupy().cuda.Device(index):
        if kind != "PyTorch":
            yield
            return
        torch: Any = sys.modules["torch"]
        with on_stream(torch.cuda.current_stream(index).cuda_stream):
            yield


def on_stream(stream: int) -> AbstractContextManager[Any]:
    """Return a context manager that makes a stream, given by its pointer, CuPy's current one."""
    from cupy import cuda

    if cuda.get_current_stream().ptr == stream:
        return nullcontext()
    if hasattr(cuda.Stream, "from_external"):
        made = cuda.Stream.from_external(SimpleNamespace(__cuda_stream__=lambda: (0, stream)))
    else:
        made = cuda.ExternalStream(stream)
    return cast("AbstractContextManager[Any]", made)


def wait_for(stream: int) -> None:
    """Make the current stream wait for the work submitted to another stream so far.

    A stream that is being captured cannot wait for work outside of a capture.
    """
    from cupy import cuda

    current = cuda.get_current_stream()
    if stream == (current.ptr or LEGACY):
        return
    captured = stream > LEGACY and bool(cuda.runtime.streamIsCapturing(stream))
    if captured and not _is_captured(current):
        raise DeviceUnavailable(
            "is written in the capture of a CUDA graph that this call is not part of"
        )
    if not captured and _is_captured(current):
        return
    event = cuda.Event(disable_timing=True)
    cuda.runtime.eventRecord(event.ptr, stream)
    current.wait_event(event)


def _is_captured(stream: Any) -> bool:
    """Return whether a stream is being captured; the default stream never is."""
    return stream.ptr > LEGACY and bool(stream.is_capturing())


def hold_until_done(arrays: Iterable[Any]) -> None:
    """Hold references to JAX's arrays until the work submitted to the current stream is done.

    XLA reuses the memory of a released array in the order of its own streams. It does not know the
    streams of kernels that read an array by DLPack. A later call releases the arrays.
    """
    from cupy import cuda

    stream = cuda.get_current_stream()
    if _is_captured(stream):  # each replay of the graph reads them
        return
    _held.append((stream.record(cuda.Event(disable_timing=True)), [*arrays]))
    if _releasing.acquire(blocking=False):  # otherwise another thread releases them
        try:
            while _held and _held[0][0].done:
                _held.popleft()
        finally:
            _releasing.release()


_held: deque[tuple[Any, list[Any]]] = deque()  # events, and the arrays held until then
_releasing = threading.Lock()


def _forked() -> None:
    global _releasing
    _releasing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def view(value: Any, kind: str) -> ArrayView:
    """View `value`, an array of the given kind, as a NumPy or CuPy array."""
    if kind == "NumPy":
        return _view_numpy(value)
    with unsupported_if_it_fails():
        return _VIEWS.get(kind, protocols.view_memory)(value)


def empty(kind: str, device: str, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Allocate a result: the NumPy or CuPy array to write, and the caller's array or None.

    On a GPU, PyTorch's allocator provides the memory of tensors, so that it knows on which stream
    they are used. `wrap` converts other results once they are written.
    """
    if device == "cpu":
        return (empty_for_jax if kind == "JAX" else np.empty)(shape, dtype), None
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{device[4:]}")
        return _view_torch(tensor).array, tensor
    import cupy

    return cupy.empty(shape, dtype), None


def empty_for_jax(shape: tuple[int, ...], dtype: Any, order: Any = "C") -> Any:
    """Allocate an array in host memory that JAX adopts without a copy."""
    memory = np.empty(math.prod(shape) * dtype.itemsize + JAX_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % JAX_ALIGNMENT
    return np.ndarray(shape, dtype, memory, start, order=order)


def wrap(array: Any, kind: str, origin: Any = None) -> Any:
    """Convert a NumPy or CuPy array to the caller's kind; see `ArrayView.origin`."""
    if kind == "PyTorch":
        return _to_torch(array)
    if kind == "JAX":
        return _to_jax(array, origin)
    if isinstance(origin, protocols.Origin):
        return protocols.to_namespace(array, origin)
    return array


def mark_written(value: Any, kind: str) -> None:
    """Record in the framework that one of its arrays was written."""
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        torch.autograd.graph.increment_version(value)


def bfloat16() -> np.dtype[Any]:
    """Return the dtype bfloat16 of the package ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError:
        raise Unsupported(
            "is bfloat16, which needs ml_dtypes (pip install 'gpugrad[bfloat16]')"
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _view_numpy(value: Any) -> ArrayView:
    if not isinstance(value, NUMPY):
        with unsupported_if_it_fails():
            return protocols.view_memory(value)
    masked = sys.modules.get("numpy.ma")  # which NumPy imports when it is first used
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise Unsupported("is a masked array, expected a plain one")
    array = np.asarray(value)
    return ArrayView(array, "" if array.flags.writeable else "is read-only")


def _view_cupy(value: Any) -> ArrayView:
    return ArrayView(value) if _kind_by_class(value) == "CuPy" else protocols.view_memory(value)


def _view_torch(value: Any) -> ArrayView:
    torch: Any = sys.modules["torch"]
    if value.layout != torch.strided:
        raise Unsupported(f"has layout {value.layout}, expected a dense strided tensor")
    if value.is_quantized:
        raise Unsupported("is quantized, expected a floating-point tensor")
    name = str(value.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise Unsupported(f"has dtype {name}, expected one of {', '.join(DTYPES)}")
    obstacle = "requires grad" if value.requires_grad else ""
    if value.is_neg():
        obstacle = "is a negated view"
    tensor = value.detach().resolve_neg()
    half = name == "bfloat16"  # travels as int16: neither NumPy nor DLPack consumers know it
    if half:
        tensor = tensor.view(torch.int16)
    if value.device.type == "cpu":
        array: Any = view_of_tensor(tensor)
    else:
        array = _at_its_address(tensor)
    return ArrayView(array.view(bfloat16()) if half else array, obstacle)


class _ByDLPack:
    """A tensor of the host for NumPy: after ``Tensor.numpy`` its storage could not be resized.

    Without what PyTorch's own method looks at: 3 µs less.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return sys.modules["torch"]._C._to_dlpack_versioned(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the host's


def view_of_tensor(tensor: Any) -> Any:
    """View a dense tensor of the host as a NumPy array; one of bfloat16 has to come as int16."""
    if tensor._is_zerotensor():
        raise Unsupported("is a tensor of zeros without memory, expected one with")
    return np.from_dlpack(_ByDLPack(tensor))


def _at_its_address(tensor: Any) -> Any:
    """View a tensor on a GPU as a CuPy array.

    By DLPack PyTorch would have CuPy's stream wait for its own, which it is: an event and a wait
    for each tensor.
    """
    import cupy

    dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    shape, steps = tuple(tensor.shape), tensor.stride()
    last = sum(step * (extent - 1) for step, extent in zip(steps, shape, strict=True))
    size = (last + 1) * dtype.itemsize if tensor.numel() else 0
    memory = cupy.cuda.UnownedMemory(tensor.data_ptr(), size, tensor, tensor.device.index)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(shape, dtype, pointer, tuple(step * dtype.itemsize for step in steps))


def _view_jax(value: Any) -> ArrayView:
    jax: Any = sys.modules["jax"]
    device = _jax_device(value)
    name = value.dtype.name
    if name == "float64" and not jax.config.jax_enable_x64:
        raise Unsupported("has dtype float64, which JAX does not make (jax_enable_x64 is False)")
    if device.platform == "cpu":
        return ArrayView(np.asarray(value), "is read-only", device)
    if name not in DTYPES:
        raise Unsupported(f"has dtype {name}, expected one of {', '.join(DTYPES)}")
    import cupy

    return ArrayView(cupy.from_dlpack(value), "is read-only", device)


def _jax_device(value: Any) -> Any:
    jax: Any = sys.modules["jax"]
    if isinstance(value, jax.core.Tracer):
        raise Unsupported("is traced by a JAX transformation, expected a concrete array")
    devices = list(value.devices())
    if len(devices) != 1:
        raise Unsupported(f"is sharded over {len(devices)} devices, expected one")
    return devices[0]


def _to_torch(array: Any) -> Any:
    torch: Any = sys.modules["torch"]
    half = array.dtype.kind == "V"  # bfloat16, an extension dtype
    make = torch.from_numpy if isinstance(array, np.ndarray) else torch.from_dlpack
    tensor = make(array.view(np.int16) if half else array)
    tensor = tensor.view(torch.bfloat16) if half else tensor
    return tensor if array.size else tensor.new_empty(array.shape)  # with PyTorch's strides


def _to_jax(array: Any, origin: Any) -> Any:
    jax: Any = sys.modules["jax"]
    if isinstance(array, np.ndarray):
        return jax.device_put(array, origin)
    return jax.numpy.from_dlpack(array)


_VIEWS = {"CuPy": _view_cupy, "PyTorch": _view_torch, "JAX": _view_jax}
