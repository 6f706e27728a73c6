"""What the operations on the CPU share: dtypes to compute in, blocks of rows, the sigmoid."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = Any  # np.ndarray; NumPy's own annotations turn many expressions into scalars

BLOCK_BYTES = 1 << 20  # of one operand's block of rows: about half a core's second-level cache


def accumulator(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Give the dtype to compute in: float32 for 16-bit inputs, else the dtype itself."""
    return np.float64 if dtype == np.float64 else np.float32


def wide(array: Array) -> Array:
    """Give the array in its accumulator's dtype; itself where it has that already."""
    return array.astype(accumulator(array.dtype), copy=False)


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Cut rows of `width` elements into blocks, by shape alone."""
    length = max(1, BLOCK_BYTES // (8 * max(1, width)))
    for start in range(0, rows, length):
        yield slice(start, min(start + length, rows))


def store(value: Array, out: Array, *, add: bool) -> None:
    """Write or add a value, in accumulator dtype, to a buffer: one rounding."""
    out[...] = wide(out) + value if add else value


def sigmoid(z: Array) -> Array:
    """σ(z) for z in accumulator dtype, without overflow."""
    e = np.exp(-np.abs(z))
    return np.maximum(e, z >= 0) / (1 + e)  # 1 or e, since e ≤ 1; np.where takes 4 times as long


def sigmoid_gradient(dy: Array, y: Array | None, z: Array | None) -> Array:
    """Dz in accumulator dtype, from the logits where they are given, else from y."""
    if z is None:
        assert y is not None
        y = wide(y)
        return wide(dy) * (y * (1 - y))
    e = np.exp(-np.abs(wide(z)))
    return wide(dy) * (e / ((1 + e) * (1 + e)))  # σ(z) σ(−z)


def column_sum(block: Array) -> Array:
    """Sum over rows in float64, from which 24 or fewer digits are kept."""
    return np.sum(block, axis=0, dtype=np.float64)
