"""CuPy's own element-wise kernels, computed by NumPy from the bytes of their parameters.

CuPy compiles them for real, and their names say what they compute: `cupy_add__float32_float32`
with the types of operands and results. An array is a CArray of CuPy's carray.cuh: address, size,
extents, strides.
"""

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from . import memory

NAME = re.compile(r"cupy_(\w+?)__([a-z0-9_]+)")
DTYPES = {
    **{name: np.dtype(name) for name in ("bool", "float16", "float32", "float64")},
    **{f"{u}int{bits}": np.dtype(f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: np.dtype(name) for name in ("complex64", "complex128")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# By the name of a kernel that a caller of CuPy wrote: what it computes from its operands.
written_by_callers: dict[str, Callable[..., Any]] = {}


class NotPlayedError(Exception):
    """A kernel of CuPy's that nothing here computes."""


def run(name: str, values: list[bytes], device: int) -> None:
    """Carry out a kernel."""
    if name == "cupy_fill":
        dtypes: list[Any] = [f"u{len(values[0])}"] * 2
        function: Callable[..., Any] = np.positive
    elif name in written_by_callers:
        raise NotPlayedError(name)
    else:
        found = NAME.fullmatch(name)
        if not found:
            raise NotPlayedError(f"the kernel {name} of CuPy is not played")
        dtypes = [DTYPES[one] for one in found[2].split("_")]
        function = np.positive if found[1] == "copy" else getattr(np, found[1])
    arrays = [
        _operand(value, dtype, device)
        for value, dtype in zip(values[: len(dtypes)], dtypes, strict=True)
    ]
    *operands, out = arrays
    with np.errstate(all="ignore"):
        out[...] = np.asarray(function(*operands)).astype(out.dtype)


def _operand(value: bytes, dtype: Any, device: int) -> Any:
    """Read an array, or a scalar by value."""
    if len(value) < 16 or (len(value) == 16 and np.dtype(dtype).itemsize == 16):
        return np.frombuffer(value, dtype)[0]
    address, _, *rest = np.frombuffer(value, np.int64).tolist()
    rank = len(rest) // 2
    return memory.view(address & (1 << 64) - 1, device, rest[:rank], rest[rank:], dtype)
