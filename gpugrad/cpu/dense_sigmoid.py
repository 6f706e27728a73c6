"""y = σ(x w + b)."""

import numpy as np

from gpugrad.cpu import arithmetic
from gpugrad.cpu.arithmetic import Array, row_blocks, wide


def dense_sigmoid(
    x: Array, w: Array, b: Array | None, *, y: Array, accumulate: tuple[str, ...]
) -> None:
    """Write y (n, m) from x (n, k), w (k, m) and b (m,)."""
    with np.errstate(all="ignore"):
        w_wide = wide(w)
        for rows in row_blocks(len(x), max(w.shape)):
            z = wide(x[rows]) @ w_wide
            y[rows] = arithmetic.sigmoid(z if b is None else z + wide(b))
