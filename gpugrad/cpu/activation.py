"""The logistic function and its gradient: the pair that says which activation a layer has.

Both compute one block, in accumulator dtype. Another activation has another pair; nothing else of
gpugrad.cpu knows what σ is.
"""

import numpy as np

from gpugrad.cpu.arithmetic import UNIT, accumulator, wide
from gpugrad.cpu.scratch import Array, Scratch


def sigma(z: Array, y: Array, scratch: Scratch) -> None:
    """Write σ(z) = 1/(1 + e⁻ᶻ) into y, which may be z. No overflow."""
    z = wide(z, "z", scratch)
    e = np.negative(z, scratch.array("e", z.shape, z.dtype))
    try:
        with np.errstate(over="raise"):
            np.exp(e, e)
    except FloatingPointError:  # the result is subnormal: by other steps, of twice the time
        _exponential(z, e)
        top = np.maximum(e, z >= 0)  # 1 or e, since e ≤ 1: np.where takes 20 times as long
    else:
        top = UNIT[z.dtype]
    np.add(e, UNIT[z.dtype], e)
    if y.dtype == z.dtype:
        np.divide(top, e, y)
    else:
        np.divide(top, e, out=y, dtype=z.dtype, casting="unsafe")


def gradient(dy: Array, y: Array, z: Array, scratch: Scratch, out: Array = None) -> Array:
    """Compute dz, in accumulator dtype, from the logits z, or from y where z is None.

    It is written to a buffer, or to `out`, which may be any of the others, and is rounded there.
    """
    dtype = accumulator(dy.dtype)
    dz, one, narrow = scratch.array("dz", dy.shape, dtype), UNIT[dtype], dy.dtype != dtype
    if z is None:
        y = wide(y, "y", scratch) if narrow else y
        np.subtract(one, y, dz)
        np.multiply(dz, y, dz)
    else:
        _exponential(wide(z, "y", scratch), dz)
        above = np.add(dz, one, scratch.array("y", dz.shape, dtype))
        np.divide(dz, above, dz)
        np.divide(dz, above, dz)  # e / (1 + e)² = σ(z) σ(−z)
    dy = wide(dy, "y", scratch) if narrow else dy
    if out is None:
        return np.multiply(dz, dy, dz)
    return np.multiply(dz, dy, out=out, casting="unsafe")


def _exponential(z: Array, e: Array) -> None:
    """Write exp(−|z|)."""
    np.abs(z, e)
    np.negative(e, e)
    np.exp(e, e)
