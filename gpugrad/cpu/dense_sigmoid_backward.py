"""dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz with dz = dy · y · (1 − y), which is never whole."""

import numpy as np

from gpugrad.cpu.arithmetic import (
    Array,
    accumulator,
    column_sum,
    row_blocks,
    sigmoid_gradient,
    store,
    wide,
)


def dense_sigmoid_backward(
    dy: Array,
    y: Array | None,
    z: Array | None,
    x: Array,
    w: Array,
    *,
    dx: Array | None = None,
    dw: Array | None = None,
    db: Array | None = None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,); dy and y or z are (n, m)."""
    with np.errstate(all="ignore"):
        w_total = np.zeros(w.shape, accumulator(w.dtype))
        b_total = np.zeros(w.shape[1])
        w_wide = wide(w)
        for rows in row_blocks(len(x), max(w.shape)):
            dz = sigmoid_gradient(
                dy[rows], None if y is None else y[rows], None if z is None else z[rows]
            )
            if dx is not None:
                store(dz @ w_wide.T, dx[rows], add="dx" in accumulate)
            if dw is not None:
                w_total += wide(x[rows]).T @ dz
            if db is not None:
                b_total += column_sum(dz)
        if dw is not None:
            store(w_total, dw, add="dw" in accumulate)
        if db is not None:
            store(b_total, db, add="db" in accumulate)
