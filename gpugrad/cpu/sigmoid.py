"""y = σ(z)."""

import numpy as np

from gpugrad.cpu import arithmetic
from gpugrad.cpu.arithmetic import Array


def sigmoid(z: Array, *, y: Array, accumulate: tuple[str, ...]) -> None:
    """Write σ(z) into y; both of any one shape."""
    with np.errstate(all="ignore"):
        y[...] = arithmetic.sigmoid(arithmetic.wide(z))
