"""db = Σ_i dy."""

import numpy as np

from gpugrad.cpu.arithmetic import Array, column_sum, row_blocks, store


def bias_backward(dy: Array, *, db: Array, accumulate: tuple[str, ...]) -> None:
    """Sum dy (n, m) over its rows into db (m,)."""
    with np.errstate(all="ignore"):
        total = np.zeros(db.shape)
        for rows in row_blocks(*dy.shape):
            total += column_sum(dy[rows])
        store(total, db, add="db" in accumulate)
