"""The kinds of arrays that callers bring, seen as NumPy or CuPy arrays without a copy.

A kind is recognised by the modules that are already imported: a CuPy array cannot exist before
somebody has imported CuPy. Nothing here imports a framework that the caller has not.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

DTYPES = ("float64", "float32", "float16", "bfloat16")
HALVES = ("float16", "bfloat16")  # computed in float32, rounded once


class Unsupported(Exception):  # noqa: N818  (an answer, turned into an error by its catcher)
    """An object that is of a known kind but cannot be viewed as a plain array."""


class Seen(NamedTuple):
    """An array of the caller's, and the same memory as a NumPy or CuPy array."""

    kind: str  # "NumPy", "CuPy", "PyTorch" or "JAX"
    home: str  # "cpu" or "gpu:<index>"
    array: Any
    writable: bool


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


def see(value: Any, kind: str) -> Seen:
    """View `value`, an array of the given kind, as a NumPy or CuPy array."""
    return _VIEWS[kind](value)


def empty(kind: str, home: str, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Allocate a result: the NumPy or CuPy array to write, and the caller's array if it is made.

    On a GPU, PyTorch allocates for its tensors, so that its allocator knows on which stream their
    memory is used; other results are made by `wrap` when they have been written.
    """
    if home == "cpu":
        return np.empty(shape, dtype), None
    if kind == "PyTorch":
        torch: Any = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{home[4:]}")
        return _see_torch(tensor).array, tensor
    import cupy

    with cupy.cuda.Device(int(home[4:])):
        return cupy.empty(shape, dtype), None


def wrap(array: Any, kind: str) -> Any:
    """Hand a NumPy or CuPy array back as an array of the caller's kind."""
    if kind == "PyTorch":
        return _to_torch(array)
    if kind == "JAX":
        return _to_jax(array)
    return array


def stream_of(kind: str, home: str) -> int | None:
    """Give the caller's current stream where it is not CuPy's own, as a raw pointer."""
    if kind == "PyTorch" and home != "cpu":
        torch: Any = sys.modules["torch"]
        return int(torch.cuda.current_stream(int(home[4:])).cuda_stream)
    return None


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
    return Seen("NumPy", "cpu", array, bool(array.flags.writeable))


def _see_cupy(value: Any) -> Seen:
    return Seen("CuPy", f"gpu:{value.device.id}", value, True)


def _see_torch(value: Any) -> Seen:
    torch: Any = sys.modules["torch"]
    if value.layout != torch.strided:
        raise Unsupported(f"has layout {value.layout}, expected a dense strided tensor")
    if value.is_quantized:
        raise Unsupported("is quantized, expected a floating-point tensor")
    name = str(value.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise Unsupported(f"has dtype {name}, expected one of {', '.join(DTYPES)}")
    tensor = value.detach()
    half = name == "bfloat16"  # travels as int16: neither NumPy nor DLPack consumers know it
    if half:
        tensor = tensor.view(torch.int16)
    array: Any
    if value.device.type == "cpu":
        home, array = "cpu", tensor.numpy()
    elif value.device.type == "cuda":
        import cupy

        home, array = f"gpu:{value.device.index}", cupy.from_dlpack(tensor)
    else:
        raise Unsupported(f"is on device {value.device}, expected the CPU or a CUDA GPU")
    return Seen("PyTorch", home, array.view(bfloat16()) if half else array, True)


def _see_jax(value: Any) -> Seen:
    jax: Any = sys.modules["jax"]
    if isinstance(value, jax.core.Tracer):
        raise Unsupported("is traced by a JAX transformation, expected a concrete array")
    devices = list(value.devices())
    if len(devices) != 1:
        raise Unsupported(f"is sharded over {len(devices)} devices, expected one")
    if devices[0].platform == "cpu":
        return Seen("JAX", "cpu", np.asarray(value), False)
    if value.dtype.name not in DTYPES:
        raise Unsupported(f"has dtype {value.dtype.name}, expected one of {', '.join(DTYPES)}")
    import cupy

    return Seen("JAX", f"gpu:{devices[0].local_hardware_id}", cupy.from_dlpack(value), False)


def _to_torch(array: Any) -> Any:
    torch: Any = sys.modules["torch"]
    half = array.dtype.name == "bfloat16"
    plain = array.view(np.int16) if half else array
    tensor = (torch.from_numpy if isinstance(plain, np.ndarray) else torch.from_dlpack)(plain)
    return tensor.view(torch.bfloat16) if half else tensor


def _to_jax(array: Any) -> Any:
    jax: Any = sys.modules["jax"]
    if isinstance(array, np.ndarray):
        return jax.numpy.asarray(array)
    return jax.numpy.from_dlpack(array)


_VIEWS = {"NumPy": _see_numpy, "CuPy": _see_cupy, "PyTorch": _see_torch, "JAX": _see_jax}
