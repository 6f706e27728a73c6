"""Element by element, and sums over rows: the arithmetic of a block that is in cache."""

import functools
from typing import Any

import numpy as np

from gpugrad.cpu.scratch import Array, Scratch

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SUM_ROWS = 64  # that are added in float32 before float64 takes over
FEW_ROWS = 128  # that are added in float32 where there are no more
FEW_SUMS = 8  # of SUM_ROWS, which float32 adds up too
SUM_WIDTH = 64  # narrower rows are summed several side by side

# As an array: to convert Python's 1 takes longer than the arithmetic of a small layer.
_ONE = {dtype: np.ones((), dtype) for dtype in (FLOAT32, FLOAT64)}


def unit(dtype: np.dtype[Any]) -> Array:
    """Give 1 in an accumulator's dtype."""
    return _ONE[dtype]


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the dtype to compute in: float32 for 16-bit inputs, else the dtype itself."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


# ---- between 16 bits and float32


def wide(block: Array, name: str, scratch: Scratch) -> Array:
    """Give a block in its accumulator's dtype: itself, or a copy in the buffer `name`."""
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


# ---- the sigmoid


def sigmoid(z: Array, y: Array, scratch: Scratch) -> None:
    """Write σ(z), computed in accumulator dtype, into y, which may be z. No overflow."""
    z = wide(z, "z", scratch)
    sigmoid_of_negated(np.negative(z, out=scratch.array("negated", z.shape, z.dtype)), y, scratch)


def sigmoid_of_negated(t: Array, y: Array, scratch: Scratch) -> None:
    """Write σ(−t) = 1/(1 + eᵗ), computed in t's dtype, into y, which may be t."""
    e = scratch.array("e", t.shape, t.dtype)
    try:
        with np.errstate(over="raise"):
            np.exp(t, out=e)
    except FloatingPointError:  # the result is subnormal: by other steps, of twice the time
        below = t <= 0
        _exponential(t, e)
        top = np.maximum(e, below)  # 1 or e, since e ≤ 1: np.where takes 20 times as long
    else:
        top = _ONE[t.dtype]
    np.add(e, _ONE[t.dtype], e)
    if y.dtype == t.dtype:
        np.divide(top, e, y)
    else:
        np.divide(top, e, out=y, dtype=t.dtype, casting="unsafe")


def sigmoid_gradient(
    dy: Array, y: Array | None, z: Array | None, scratch: Scratch, out: Array | None = None
) -> Array:
    """Compute dz, in accumulator dtype, from the logits where they are given, else from y.

    It is written to a buffer, or to `out`, which may be any of the others, and is rounded there.
    """
    dz = scratch.array("dz", dy.shape, accumulator(dy.dtype))
    if z is None:
        y = wide(y, "y", scratch)
        np.subtract(_ONE[dz.dtype], y, dz)
        np.multiply(dz, y, dz)
    else:
        _exponential(wide(z, "y", scratch), dz)
        above = np.add(dz, _ONE[dz.dtype], out=scratch.array("y", dz.shape, dz.dtype))
        np.divide(dz, above, out=dz)
        np.divide(dz, above, out=dz)  # e / (1 + e)² = σ(z) σ(−z)
    dy = wide(dy, "y", scratch)
    if out is None:
        return np.multiply(dz, dy, dz)
    return np.multiply(dz, dy, out=out, casting="unsafe")


def _exponential(z: Array, e: Array) -> None:
    """Write exp(−|z|)."""
    np.abs(z, out=e)
    np.negative(e, out=e)
    np.exp(e, out=e)


# ---- sums


def sum_columns(block: Array, out: Array, *, add: bool) -> None:
    """Write or add the sum of a block (rows, m) over its rows to out (m,)."""
    rows = len(block)
    if rows <= FEW_ROWS and not add and out.dtype == block.dtype and out.flags.carray:
        ones(rows, block.dtype).dot(block, out)
    else:
        store(column_sum(block), out, add=add)


def column_sum(block: Array) -> Array:
    """Sum a block (rows, m), in accumulator dtype, over its rows: (m,).

    A product with a row of ones sums 64 rows at a time in the block's dtype, and what it leaves
    is summed in float64: a quarter of the time that np.sum in float64 takes.
    """
    rows, m = block.shape
    if rows <= FEW_ROWS:
        return ones(rows, block.dtype).dot(block)
    if rows <= FEW_SUMS * SUM_ROWS:  # float64 would take half of the time
        return _sum_of_few(block)
    beside = max(1, SUM_WIDTH // max(1, m))
    pieces = rows // (SUM_ROWS * beside)
    head = pieces * SUM_ROWS * beside
    row = ones(SUM_ROWS, block.dtype)[None]
    parts = np.matmul(row, block[:head].reshape(pieces, SUM_ROWS, beside * m))
    total = np.add.reduce(parts, axis=0, dtype=FLOAT64).reshape(beside, m)
    return np.add.reduce(total, axis=0) + np.add.reduce(block[head:], axis=0, dtype=FLOAT64)


def _sum_of_few(block: Array) -> Array:
    (rows, m), dtype = block.shape, block.dtype
    pieces = rows // SUM_ROWS
    head = pieces * SUM_ROWS
    row = ones(SUM_ROWS, dtype)[None]
    parts = np.matmul(row, block[:head].reshape(pieces, SUM_ROWS, m)).reshape(pieces, m)
    total = ones(pieces, dtype).dot(parts)
    if head < rows:
        np.add(total, ones(rows - head, dtype).dot(block[head:]), out=total)
    return total


@functools.cache
def ones(number: int, dtype: np.dtype[Any]) -> Array:
    """Give a row of up to FEW_ROWS ones, which is not to be written."""
    return np.ones(number, dtype)
