"""dz = dy · y · (1 − y) and db = Σ_i dz in one pass."""

import numpy as np

from gpugrad.cpu.arithmetic import Array, column_sum, row_blocks, sigmoid_gradient, store


def sigmoid_bias_backward(
    dy: Array,
    y: Array | None,
    z: Array | None,
    *,
    dz: Array,
    db: Array,
    accumulate: tuple[str, ...],
) -> None:
    """Write dz (n, m) and its column sums db (m,)."""
    with np.errstate(all="ignore"):
        total = np.zeros(db.shape)
        for rows in row_blocks(*dy.shape):
            block = sigmoid_gradient(
                dy[rows], None if y is None else y[rows], None if z is None else z[rows]
            )
            total += column_sum(block)
            store(block, dz[rows], add="dz" in accumulate)
        store(total, db, add="db" in accumulate)
