"""Descriptors of arrays for bulk copies (TMA)."""

from dataclasses import dataclass

import numpy as np

from .errors import EmulatorError

MAGIC = 0x544D4150
BYTES = 128  # of a descriptor, as CUtensorMap has
MAX_RANK = 4
SWIZZLES = {0: 0, 128: 1, 64: 2, 32: 3}  # bytes of the swizzle: its number in a descriptor
ITEM_BYTES = (1, 2, 4, 8)
MAX_EXTENT = 1 << 32
MAX_BOX = 256  # elements along a dimension
ALIGNMENT = 16  # bytes: of the array, of its strides, and of the rows of a box
STRIDE_LIMIT = 1 << 40  # bytes


@dataclass(frozen=True)
class TensorMap:
    """An array of 2 to 4 dimensions, read in boxes; `swizzle` is 0, 32, 64 or 128 bytes.

    The axes of `box` are those of the array: the last is contiguous, and is the first coordinate
    of a copy. What cuTensorMapEncodeTiled refuses is an error here too.
    """

    array: np.ndarray
    box: tuple[int, ...]
    swizzle: int = 128

    def __post_init__(self) -> None:
        array = self.array
        if not 2 <= array.ndim <= MAX_RANK or strides_of(array)[-1] != array.itemsize:
            raise EmulatorError(
                f"tensor map: there are 2 to {MAX_RANK} dimensions, and rows must be contiguous: "
                f"shape {array.shape}, strides {array.strides}"
            )
        if array.itemsize not in ITEM_BYTES:
            raise EmulatorError(f"tensor map: elements of {array.dtype} cannot be copied")
        if not all(1 <= extent <= MAX_EXTENT for extent in array.shape):
            raise EmulatorError(f"tensor map: shape is {array.shape}, expected 1 to 2^32")
        outer = strides_of(array)[:-1]
        if array.ctypes.data % ALIGNMENT or any(stride % ALIGNMENT for stride in outer):
            raise EmulatorError(
                f"tensor map: the array and its rows must be {ALIGNMENT}-byte aligned, "
                f"strides {array.strides}"
            )
        if not all(0 < stride < STRIDE_LIMIT for stride in outer):
            raise EmulatorError(
                f"tensor map: strides are {array.strides}, expected above 0 and below 2^40"
            )
        if len(self.box) != array.ndim or not all(1 <= extent <= MAX_BOX for extent in self.box):
            raise EmulatorError(
                f"tensor map: box is {self.box}, expected {array.ndim} extents of 1 to {MAX_BOX}"
            )
        if self.swizzle not in SWIZZLES:
            raise EmulatorError(f"tensor map: swizzle is {self.swizzle}, not in {list(SWIZZLES)}")
        row = self.box[-1] * array.itemsize
        if row % ALIGNMENT or (self.swizzle and row > self.swizzle):
            raise EmulatorError(
                f"tensor map: a row of the box has {row} bytes, expected a multiple of "
                f"{ALIGNMENT} and no more than the swizzle, {self.swizzle}"
            )

    def pack(self, address: int, size: int) -> bytes:
        """Return the bytes that the runtime expects in a parameter of `size` bytes."""
        if size != BYTES:
            raise EmulatorError(f"tensor map: the kernel's parameter has {size} bytes, not {BYTES}")

        def innermost_first(values: tuple[int, ...], rest: int) -> list[int]:
            return [*reversed(values), *[rest] * (MAX_RANK - len(values))]

        extents = innermost_first(self.array.shape, 1)
        strides = innermost_first(strides_of(self.array), 0)
        last = [self.array.ndim, self.array.itemsize, SWIZZLES[self.swizzle]]
        packed = np.array([MAGIC, address, *extents, *strides], np.uint64).tobytes()
        packed += np.array([*innermost_first(self.box, 1), *last], np.uint32).tobytes()
        return packed.ljust(size, b"\0")


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    """Return strides in bytes; of an axis of one element, one that a descriptor may have."""
    strides: list[int] = []
    for extent, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if extent == 1:
            stride = ALIGNMENT if strides else array.itemsize
        strides.insert(0, stride)
    return tuple(strides)
