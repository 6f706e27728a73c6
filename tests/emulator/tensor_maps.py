"""Descriptors of two-dimensional arrays for bulk copies (TMA)."""

from dataclasses import dataclass

import numpy as np

from .errors import EmulatorError

MAGIC = 0x544D4150
SWIZZLES = {0: 0, 128: 1, 64: 2, 32: 3}  # bytes of the swizzle: its number in a descriptor
MAX_BOX = 256  # rows or columns
ALIGNMENT = 16  # bytes: of the array, of its rows, and of the rows of a box


@dataclass(frozen=True)
class TensorMap:
    """A row-major matrix, read in boxes of (rows, columns); `swizzle` is 0, 32, 64 or 128 bytes.

    What cuTensorMapEncodeTiled refuses is an error here too.
    """

    array: np.ndarray
    box: tuple[int, int]
    swizzle: int = 128

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or self.array.strides[1] != self.array.itemsize:
            raise EmulatorError(
                f"tensor map: rows must be contiguous, strides {self.array.strides}"
            )
        if self.array.ctypes.data % ALIGNMENT or self.array.strides[0] % ALIGNMENT:
            raise EmulatorError(
                f"tensor map: the array and its rows must be {ALIGNMENT}-byte aligned, "
                f"strides {self.array.strides}"
            )
        if not all(1 <= extent <= MAX_BOX for extent in self.box):
            raise EmulatorError(f"tensor map: box is {self.box}, expected 1 to {MAX_BOX}")
        if self.swizzle not in SWIZZLES:
            raise EmulatorError(f"tensor map: swizzle is {self.swizzle}, not in {list(SWIZZLES)}")
        row = self.box[1] * self.array.itemsize
        if row % ALIGNMENT or (self.swizzle and row > self.swizzle):
            raise EmulatorError(
                f"tensor map: a row of the box has {row} bytes, expected a multiple of "
                f"{ALIGNMENT} and no more than the swizzle, {self.swizzle}"
            )

    def pack(self, address: int, size: int) -> bytes:
        """The bytes that the runtime expects in a parameter of `size` bytes."""
        rows, columns = self.array.shape
        words = (MAGIC, address, columns, rows, self.array.strides[0])
        box_rows, box_columns = self.box
        last = (box_columns, box_rows, self.array.itemsize, SWIZZLES[self.swizzle])
        packed = np.array(words, np.uint64).tobytes() + np.array(last, np.uint32).tobytes()
        return packed.ljust(size, b"\0")
