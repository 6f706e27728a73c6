"""Tensor maps: descriptors of arrays for TMA (compute capability 9.0).

The driver encodes them (cuTensorMapEncodeTiled); a kernel takes one by value. The function is
called through ctypes, because a map needs 64-byte aligned memory, which the objects of
cuda.bindings do not have.
"""

import ctypes
import functools
from typing import Any, NamedTuple

from gpugrad.errors import DeviceError
from gpugrad.gpu.availability import driver

ALIGNMENT = 16  # bytes, of every stride
BYTES = 128  # of a CUtensorMap
MAX_CACHED = 4096  # maps: pools reuse addresses

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
    """Return the layout of an array of 16-bit elements.

    The array and its strides are aligned to 16 bytes; the last axis is contiguous. The stride of a
    dimension of extent 1 is replaced by a valid one.
    """
    itemsize = array.dtype.itemsize
    strides: list[int] = []
    inner = -(-array.shape[-1] * itemsize // ALIGNMENT) * ALIGNMENT
    for extent, stride in zip(array.shape[-2::-1], array.strides[-2::-1], strict=True):
        strides.append(stride if extent > 1 else inner)
        inner = strides[-1] * extent
    return Layout(array.shape[::-1], tuple(strides))


@functools.lru_cache(maxsize=MAX_CACHED)
def encode(of: Layout, box: tuple[int, ...], swizzle: int, where: int) -> bytes:
    """Encode a map.

    Raises
    ------
    DeviceError
        The driver rejects it.
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
            f"cuTensorMapEncodeTiled returned error {status} for extents {of.extents}, strides "
            f"{of.strides}, box {box[::-1]}"
        )
    return ctypes.string_at(aligned, BYTES)


@functools.cache
def _encoder() -> Any:
    """Return cuTensorMapEncodeTiled of the driver."""
    return driver().cuTensorMapEncodeTiled
