"""dx = dy wᵀ and dw = xᵀ dy."""

import numpy as np

from gpugrad.cpu.arithmetic import Array, accumulator, row_blocks, store, wide


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    dx: Array | None = None,
    dw: Array | None = None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k) and dw (k, m) from dy (n, m), x (n, k) and w (k, m)."""
    with np.errstate(all="ignore"):
        total = np.zeros(w.shape, accumulator(w.dtype))
        w_wide = wide(w)
        for rows in row_blocks(len(x), max(w.shape)):
            dy_block = wide(dy[rows])
            if dx is not None:
                store(dy_block @ w_wide.T, dx[rows], add="dx" in accumulate)
            if dw is not None:
                total += wide(x[rows]).T @ dy_block
        if dw is not None:
            store(total, dw, add="dw" in accumulate)
