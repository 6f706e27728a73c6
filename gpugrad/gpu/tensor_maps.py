"""Tensor maps: what the TMA unit of compute capability 9.0 knows of an array.

The driver encodes them (cuTensorMapEncodeTiled of the CUDA driver API); a kernel takes one by
value. The driver's function is called by its address, because it wants 64-byte aligned memory for
a map, which the objects of cuda.bindings do not have.
"""

import ctypes
import functools
from typing import Any, NamedTuple

from gpugrad.errors import DeviceError
from gpugrad.gpu.availability import driver

ALIGNMENT = 16  # bytes, of every stride
BYTES = 128  # of a map, CUtensorMap
REMEMBERED = 4096  # maps: arrays of later calls have the addresses of earlier ones

# CUtensorMapDataType, -Interleave, -Swizzle, -L2promotion and -FloatOOBfill of cuda.h
UINT16 = 1
NO_INTERLEAVE = 0
SWIZZLES = {64: 2, 128: 3}  # by bytes
L2_128B = 2
ZEROS = 0


class Layout(NamedTuple):
    """Extents in elements, innermost first, and strides in bytes of all but the innermost."""

    extents: tuple[int, ...]
    strides: tuple[int, ...]


def layout(array: Any) -> Layout:
    """Return what the driver is told of an array of 16-bit elements.

    It is aligned to 16 bytes, and so are its strides, but for the last axis, which is contiguous.

    Where a dimension has one element, its stride means nothing: any that the driver takes will do.
    """
    itemsize = array.dtype.itemsize
    strides: list[int] = []
    inner = -(-array.shape[-1] * itemsize // ALIGNMENT) * ALIGNMENT
    for extent, stride in zip(array.shape[-2::-1], array.strides[-2::-1], strict=True):
        strides.append(stride if extent > 1 else inner)
        inner = strides[-1] * extent
    return Layout(array.shape[::-1], tuple(strides))


@functools.lru_cache(maxsize=REMEMBERED)
def encode(of: Layout, box: tuple[int, ...], swizzle: int, where: int) -> bytes:
    """Encode a map; a function of its arguments alone.

    Raises
    ------
    DeviceError
        The driver does not take it.
    """
    rank = len(of.extents)
    memory = ctypes.create_string_buffer(2 * BYTES)
    aligned = -(-ctypes.addressof(memory) // BYTES) * BYTES
    status = _encoder()(
        ctypes.c_void_p(aligned),
        UINT16,
        rank,
        ctypes.c_void_p(where),
        (ctypes.c_uint64 * rank)(*of.extents),
        (ctypes.c_uint64 * rank)(*of.strides),
        (ctypes.c_uint32 * rank)(*reversed(box)),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        NO_INTERLEAVE,
        SWIZZLES[swizzle],
        L2_128B,
        ZEROS,
    )
    if status:
        raise DeviceError(
            f"cuTensorMapEncodeTiled gives error {status} for extents {of.extents}, strides "
            f"{of.strides}, box {box[::-1]}"
        )
    return ctypes.string_at(aligned, BYTES)


@functools.cache
def _encoder() -> Any:
    """Return the driver's function."""
    return driver().cuTensorMapEncodeTiled
