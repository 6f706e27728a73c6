"""The kinds of arrays that callers bring, seen as NumPy or CuPy arrays without a copy.

A kind is recognised by the modules that are already imported: a CuPy array cannot exist before
somebody has imported CuPy. Nothing here imports a framework that the caller has not, but for CuPy
where the memory of an unknown array is on a GPU.

If an array of an unknown type has a namespace of the array API standard, its type is a kind of its
own, and the namespace makes the results. No other type can be made: its arrays count as NumPy or
CuPy arrays, after where their memory is, and results are NumPy or CuPy arrays.
"""

import functools
import math
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
LEGACY = 1  # CUDA's default stream, which CuPy calls 0
JAX_ALIGNMENT = 64  # of memory, in bytes, that JAX takes over without a copy

NUMPY = (np.ndarray, np.generic)
CLASSES = (("cupy", "ndarray", "CuPy"), ("torch", "Tensor", "PyTorch"), ("jax", "Array", "JAX"))
KINDS = ("NumPy", *(kind for _, _, kind in CLASSES))


def kind_of(value: object) -> str | None:
    """Name the kind of `value`, or None if it is no array; Unsupported if it does not say."""
    if isinstance(value, NUMPY):
        return "NumPy"
    kind = _kind_by_class(value)
    if kind is None and protocols.shows_memory(value):
        if protocols.namespace_of(value) is not None:
            return _name_of_type(value)
        return "NumPy" if protocols.home_of_memory(value) == "cpu" else "CuPy"
    return kind


def called(kind: str, value: object = None) -> str:
    """Return what a kind's arrays are called, and of a value the type if that is another."""
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
def supported(dtype: np.dtype[Any]) -> bool:
    """Return whether this library computes in a dtype."""
    return dtype.name in DTYPES


def home_of(value: Any, kind: str) -> str:
    """Return where an array is: "cpu" or "gpu:<index>"."""
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
        return protocols.home_of_memory(value)


@contextmanager
def working_on(kind: str, home: str) -> Iterator[None]:
    """Make the device and the stream of the caller's arrays current, for views and copies.

    The stream is CuPy's current one; for PyTorch's tensors it is PyTorch's.
    """
    if home == "cpu":
        yield
        return
    device = int(home[4:])
    with imported_cupy().cuda.Device(device):
        if kind != "PyTorch":
            yield
            return
        torch: Any = sys.modules["torch"]
        with on_stream(torch.cuda.current_stream(device).cuda_stream):
            yield


def on_stream(stream: int) -> AbstractContextManager[Any]:
    """Return a context in which a stream, by its pointer, is CuPy's current one."""
    from cupy import cuda

    if cuda.get_current_stream().ptr == stream:
        return nullcontext()
    if hasattr(cuda.Stream, "from_external"):
        made = cuda.Stream.from_external(SimpleNamespace(__cuda_stream__=lambda: (0, stream)))
    else:
        made = cuda.ExternalStream(stream)
    return cast("AbstractContextManager[Any]", made)


def wait_for(stream: int) -> None:
    """Have the current stream wait for what another one has been given so far.

    A capture cannot wait for what is not part of one.
    """
    from cupy import cuda

    current = cuda.get_current_stream()
    if stream == (current.ptr or LEGACY):
        return
    captured = stream > LEGACY and bool(cuda.runtime.streamIsCapturing(stream))
    if captured and not _is_captured(current):
        raise DeviceUnavailable(
            "is written in the capture of a CUDA graph, of which this call is no part"
        )
    if not captured and _is_captured(current):
        return
    event = cuda.Event(disable_timing=True)
    cuda.runtime.eventRecord(event.ptr, stream)
    current.wait_event(event)


def _is_captured(stream: Any) -> bool:
    """Return whether a CUDA graph captures a stream; never the default stream, under both names."""
    return stream.ptr > LEGACY and bool(stream.is_capturing())


def hold_until_done(arrays: Iterable[Any]) -> None:
    """Keep JAX's arrays on a GPU until the current stream has done what it was given so far.

    XLA gives the memory of an array that is dropped to others, in the order of its own streams. It
    is not told of the streams of kernels that read an array by DLPack. What is kept is dropped by a
    later call.
    """
    from cupy import cuda

    stream = cuda.get_current_stream()
    if _is_captured(stream):  # the graph reads them whenever it is replayed
        return
    _held.append((stream.record(cuda.Event(disable_timing=True)), [*arrays]))
    if _dropping.acquire(blocking=False):  # else another thread does
        try:
            while _held and _held[0][0].done:
                _held.popleft()
        finally:
            _dropping.release()


_held: deque[tuple[Any, list[Any]]] = deque()  # events, and what is kept until they are done
_dropping = threading.Lock()


def see(value: Any, kind: str) -> ArrayView:
    """View `value`, an array of the given kind, as a NumPy or CuPy array."""
    if kind == "NumPy":
        return _see_numpy(value)
    with unsupported_if_it_fails():
        return _VIEWS.get(kind, protocols.see_memory)(value)


def empty(kind: str, home: str, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Allocate a result: the NumPy or CuPy array to write, and the caller's array if it is made.

    On a GPU, PyTorch allocates for its tensors, so that its allocator knows on which stream their
    memory is used; other results are made by `wrap` when they have been written.
    """
    if home == "cpu":
        return (empty_for_jax if kind == "JAX" else np.empty)(shape, dtype), None
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{home[4:]}")
        return _see_torch(tensor).array, tensor
    import cupy

    return cupy.empty(shape, dtype), None


def empty_for_jax(shape: tuple[int, ...], dtype: Any, order: Any = "C") -> Any:
    """Allocate an array of the host that JAX takes over without a copy."""
    memory = np.empty(math.prod(shape) * dtype.itemsize + JAX_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % JAX_ALIGNMENT
    return np.ndarray(shape, dtype, memory, start, order=order)


def wrap(array: Any, kind: str, place: Any = None) -> Any:
    """Hand a NumPy or CuPy array back as an array of the caller's kind, where it came from."""
    if kind == "PyTorch":
        return _to_torch(array)
    if kind == "JAX":
        return _to_jax(array, place)
    if isinstance(place, protocols.Origin):
        return protocols.to_namespace(array, place)
    return array


def tell_written(value: Any, kind: str) -> None:
    """Notify the framework that a buffer of its own has been written."""
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        torch.autograd.graph.increment_version(value)


def bfloat16() -> np.dtype[Any]:
    """Return NumPy's bfloat16, which the package ml_dtypes provides."""
    try:
        import ml_dtypes
    except ImportError:
        raise Unsupported(
            "is bfloat16, which needs ml_dtypes (pip install 'gpugrad[bfloat16]')"
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _see_numpy(value: Any) -> ArrayView:
    if not isinstance(value, NUMPY):
        with unsupported_if_it_fails():
            return protocols.see_memory(value)
    if isinstance(value, np.ma.MaskedArray):
        raise Unsupported("is a masked array, expected a plain one")
    array = np.asarray(value)
    return ArrayView(array, "" if array.flags.writeable else "is read-only")


def _see_cupy(value: Any) -> ArrayView:
    return ArrayView(value) if _kind_by_class(value) == "CuPy" else protocols.see_memory(value)


def _see_torch(value: Any) -> ArrayView:
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
        array: Any = tensor.numpy()
    else:
        array = _at_its_address(tensor)
    return ArrayView(array.view(bfloat16()) if half else array, obstacle)


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


def _see_jax(value: Any) -> ArrayView:
    jax: Any = sys.modules["jax"]
    device = _jax_device(value)
    name = value.dtype.name
    if name == "float64" and not jax.config.jax_enable_x64:
        raise Unsupported("has dtype float64, which JAX has been told not to make (jax_enable_x64)")
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
    half = array.dtype.kind == "V"  # bfloat16, which NumPy does not know itself
    make = torch.from_numpy if isinstance(array, np.ndarray) else torch.from_dlpack
    tensor = make(array.view(np.int16) if half else array)
    tensor = tensor.view(torch.bfloat16) if half else tensor
    return tensor if array.size else tensor.new_empty(array.shape)  # of PyTorch's own strides


def _to_jax(array: Any, place: Any) -> Any:
    jax: Any = sys.modules["jax"]
    if isinstance(array, np.ndarray):
        return jax.device_put(array, place)
    return jax.numpy.from_dlpack(array)


_VIEWS = {"CuPy": _see_cupy, "PyTorch": _see_torch, "JAX": _see_jax}
