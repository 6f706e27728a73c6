"""The kinds of arrays that callers bring, seen as NumPy or CuPy arrays without a copy.

A kind is recognised by the modules that are already imported: a CuPy array cannot exist before
somebody has imported CuPy. Nothing here imports a framework that the caller has not.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

DTYPES = ("float64", "float32", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")  # computed in float32, rounded once


class Unsupported(Exception):  # noqa: N818  (an answer, turned into an error by its catcher)
    """An object that is of a known kind but cannot be viewed as a plain array."""


class Seen(NamedTuple):
    """An array of the caller's, and the same memory as a NumPy or CuPy array."""

    array: Any
    obstacle: str = ""  # why it cannot be written to
    place: Any = None  # JAX's device, to which results return


def kind_of(value: object) -> str | None:
    """Name the kind of `value`, or None if it is no array of a known kind."""
    if isinstance(value, np.ndarray | np.generic):
        return "NumPy"
    for module_name, class_name, kind in (
        ("cupy", "ndarray", "CuPy"),
        ("torch", "Tensor", "PyTorch"),
        ("jax", "Array", "JAX"),
    ):
        module = sys.modules.get(module_name)
        known = getattr(module, class_name, None)
        if known is not None and isinstance(value, known):
            return kind
    return None


@functools.cache
def supported(dtype: np.dtype[Any]) -> bool:
    """Say whether this library computes in a dtype."""
    return dtype.name in DTYPES


@contextmanager
def unsupported_if_it_fails() -> Iterator[None]:
    """Turn whatever a framework says of its special arrays into an answer."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unsupported(f"cannot be viewed as a plain array ({reason})") from error


def home_of(value: Any, kind: str) -> str:
    """Say where an array is: "cpu" or "gpu:<index>"."""
    if kind == "NumPy":
        return "cpu"
    with unsupported_if_it_fails():
        if kind == "CuPy":
            return f"gpu:{value.device.id}"
        if kind == "PyTorch" and value.device.type != "cpu":
            if value.device.type != "cuda":
                raise Unsupported(f"is on device {value.device}, expected the CPU or a CUDA GPU")
            return f"gpu:{value.device.index}"
        if kind == "JAX":
            device = _jax_device(value)
            return "cpu" if device.platform == "cpu" else f"gpu:{device.local_hardware_id}"
        return "cpu"


@contextmanager
def working_on(kind: str, home: str) -> Iterator[None]:
    """Make the device and the stream of the caller's arrays current, for views, copies and kernels.

    The stream is CuPy's current one; for PyTorch's tensors it is PyTorch's.
    """
    if home == "cpu":
        yield
        return
    import cupy

    with cupy.cuda.Device(int(home[4:])):
        if kind != "PyTorch":
            yield
            return
        torch: Any = sys.modules["torch"]
        stream = torch.cuda.current_stream(int(home[4:]))
        if hasattr(cupy.cuda.Stream, "from_external") and hasattr(stream, "__cuda_stream__"):
            current = cupy.cuda.Stream.from_external(stream)
        else:
            current = cupy.cuda.ExternalStream(stream.cuda_stream)
        with current:
            yield


def see(value: Any, kind: str) -> Seen:
    """View `value`, an array of the given kind, as a NumPy or CuPy array."""
    if kind == "NumPy":
        return _see_numpy(value)
    with unsupported_if_it_fails():
        return _VIEWS[kind](value)


def empty(
    kind: str, home: str, shape: tuple[int, ...], dtype: Any, order: str = "C"
) -> tuple[Any, Any]:
    """Allocate a result: the NumPy or CuPy array to write, and the caller's array if it is made.

    `order` is "C", or "F" for a matrix whose columns are contiguous.

    On a GPU, PyTorch allocates for its tensors, so that its allocator knows on which stream their
    memory is used; other results are made by `wrap` when they have been written.
    """
    if home == "cpu":
        return np.empty(shape, dtype, order), None  # type: ignore[call-overload]
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        turned = order == "F"
        tensor = torch.empty(
            shape[::-1] if turned else shape,
            dtype=getattr(torch, dtype.name),
            device=f"cuda:{home[4:]}",
        )
        tensor = tensor.t() if turned else tensor
        return _see_torch(tensor).array, tensor
    import cupy

    return cupy.empty(shape, dtype, order=order), None


def wrap(array: Any, kind: str, place: Any = None) -> Any:
    """Hand a NumPy or CuPy array back as an array of the caller's kind, where it came from."""
    if kind == "PyTorch":
        return _to_torch(array)
    if kind == "JAX":
        return _to_jax(array, place)
    return array


def tell_written(value: Any, kind: str) -> None:
    """Tell the framework that a buffer of its own has been written."""
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        torch.autograd.graph.increment_version(value)


def bfloat16() -> np.dtype[Any]:
    """Give NumPy's bfloat16, which the package ml_dtypes provides."""
    try:
        import ml_dtypes
    except ImportError:
        raise Unsupported(
            "is bfloat16, which needs ml_dtypes (pip install 'gpugrad[bfloat16]')"
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _see_numpy(value: Any) -> Seen:
    if isinstance(value, np.ma.MaskedArray):
        raise Unsupported("is a masked array, expected a plain one")
    array = np.asarray(value)
    return Seen(array, "" if array.flags.writeable else "is read-only")


def _see_cupy(value: Any) -> Seen:
    return Seen(value)


def _see_torch(value: Any) -> Seen:
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
    array: Any
    if value.device.type == "cpu":
        array = tensor.numpy()
    else:
        import cupy

        array = cupy.from_dlpack(tensor)
    return Seen(array.view(bfloat16()) if half else array, obstacle)


def _see_jax(value: Any) -> Seen:
    jax: Any = sys.modules["jax"]
    device = _jax_device(value)
    name = value.dtype.name
    if name == "float64" and not jax.config.jax_enable_x64:
        raise Unsupported("has dtype float64, which JAX has been told not to make (jax_enable_x64)")
    if device.platform == "cpu":
        return Seen(np.asarray(value), "is read-only", device)
    if name not in DTYPES:
        raise Unsupported(f"has dtype {name}, expected one of {', '.join(DTYPES)}")
    import cupy

    return Seen(cupy.from_dlpack(value), "is read-only", device)


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
    half = array.dtype.name == "bfloat16"
    tensor = torch.from_numpy(array.view(np.int16) if half else array)
    return tensor.view(torch.bfloat16) if half else tensor


def _to_jax(array: Any, place: Any) -> Any:
    jax: Any = sys.modules["jax"]
    if isinstance(array, np.ndarray):
        return jax.device_put(array, place)
    return jax.numpy.from_dlpack(array)


_VIEWS = {"CuPy": _see_cupy, "PyTorch": _see_torch, "JAX": _see_jax}
