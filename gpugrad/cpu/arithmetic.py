"""Accumulators: the dtype to compute in, and the way there and back."""

from typing import Any

import numpy as np

from gpugrad.cpu.scratch import Array, Scratch

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

# 1 as an array: to convert Python's 1 takes longer than the arithmetic of a small layer.
UNIT = {dtype: np.ones((), dtype) for dtype in (FLOAT32, FLOAT64)}


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype to compute in: float32 for 16-bit inputs, else the dtype itself."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def wide(block: Array, name: str, scratch: Scratch) -> Array:
    """Return a block in its accumulator's dtype: itself, or a copy in the buffer `name`."""
    if block.dtype == FLOAT32 or block.dtype == FLOAT64:
        return block
    copy = scratch.array(name, block.shape, FLOAT32)
    if block.dtype == np.float16:
        _widen_float16(block, copy)
    else:
        np.copyto(copy, block)
    return copy


def _widen_float16(block: Array, copy: Array) -> None:
    """Convert by shifting the exponents in place, 4 times as fast as NumPy's own conversion."""
    bits = copy.view(np.int32)
    np.copyto(bits, block.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, -0x70002000, out=bits)  # sign, exponent and fraction: 0x8fffe000
    np.multiply(copy, 2.0**112, out=copy)  # exact, of subnormal numbers too
    if copy.size and (copy.max() >= 65536 or copy.min() <= -65536):  # infinities and NaNs
        np.copyto(copy, block)


def store(value: Array, out: Array, *, add: bool) -> None:
    """Write or add a value, in accumulator dtype, to a buffer: one rounding."""
    if add:
        np.add(out, value, out=out, dtype=value.dtype, casting="unsafe")
    else:
        np.copyto(out, value, casting="unsafe")
