"""Tensor maps: what the copy engine of compute capability 9.0 knows of an array.

The driver encodes them (cuTensorMapEncodeTiled of the CUDA driver API, by way of cuda.bindings);
a kernel takes one by value.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from gpugrad._arrays import address
from gpugrad.errors import DeviceError

ALIGNMENT = 16  # bytes, of every stride
DTYPE = np.dtype([("opaque", np.uint64, 16)])  # CUtensorMap
REMEMBERED = 4096  # maps: arrays of later calls have the addresses of earlier ones


class Layout(NamedTuple):
    """Extents in elements, innermost first, and strides in bytes of all but the innermost."""

    extents: tuple[int, ...]
    strides: tuple[int, ...]


class TensorMap:
    """The map of an array of 16-bit elements; encoded when it is needed, for the address then.

    Parameters
    ----------
    array : array
        Aligned to 16 bytes, with strides that are multiples of 16 bytes, but for the last axis,
        which is contiguous.
    box : tuple of int
        Extents of what is copied at once, along the array's axes. What of it is outside the array
        is filled with zeros.
    swizzle : {64, 128}
        Bytes of a row of the box in shared memory, by which its 16-byte pieces are exchanged.

    Attributes
    ----------
    encode : function
        Gives the 128 bytes of the map of such an array at an address, and does not hold this one.
    """

    def __init__(self, array: Any, box: tuple[int, ...], swizzle: int) -> None:
        self.array = array
        self.encode = functools.partial(encode, layout(array), box, swizzle)

    def by_value(self) -> np.ndarray:
        """Give the map as CuPy takes a structure; blank if the array is empty."""
        if self.array.size == 0:
            return np.zeros(1, DTYPE)
        return np.frombuffer(self.encode(address(self.array)), DTYPE)


def layout(array: Any) -> Layout:
    """Describe an array whose last axis is contiguous.

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
    from cuda.bindings import driver

    rank = len(of.extents)
    status, tensor_map = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT16,
        rank,
        where,
        [driver.cuuint64_t(extent) for extent in of.extents],
        [driver.cuuint64_t(stride) for stride in of.strides],
        [driver.cuuint32_t(extent) for extent in reversed(box)],
        [driver.cuuint32_t(1)] * rank,
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}B"),
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if status:
        raise DeviceError(
            f"cuTensorMapEncodeTiled gives {status.name} for extents {of.extents}, strides "
            f"{of.strides}, box {box[::-1]}"
        )
    return np.array([int(word) for word in tensor_map.opaque], np.uint64).tobytes()
