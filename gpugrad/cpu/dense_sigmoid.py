"""y = σ(x w + b)."""

from functools import partial

import numpy as np

from gpugrad.cpu import arithmetic, blas
from gpugrad.cpu.arithmetic import wide
from gpugrad.cpu.cuts import cut, cut_rows
from gpugrad.cpu.products import (
    FEW,
    LONG,
    SHORT,
    chunk,
    is_small,
    is_unthreaded,
    multiply,
    operand,
)
from gpugrad.cpu.scratch import Array, Scratch
from gpugrad.cpu.workers import Work

ALL = slice(None)


def dense_sigmoid(
    x: Array, w: Array, b: Array | None, y: Array, accumulate: tuple[str, ...] = ()
) -> None:
    """Write y (n, m) from x (n, k), w (k, m) and b (m,)."""

    def tile(rows: slice, columns: slice, scratch: Scratch) -> None:
        out = y[rows, columns]
        z = scratch.array("z", out.shape, arithmetic.accumulator(x.dtype))
        for i, terms in enumerate(cut(w.shape[0], chunk(x.dtype, computed=False))):
            left = operand(x[rows, terms], "x", scratch)
            right = operand(w[terms, columns], "w", scratch)
            multiply(left, right, z, scratch, add=i > 0)
        if b is not None:
            np.add(z, wide(b[columns], "b", scratch), out=z)
        arithmetic.sigmoid(z, out, scratch)

    (n, k), m, width = x.shape, w.shape[1], LONG
    if is_small(n, k, m):
        with np.errstate(all="ignore"):
            if is_unthreaded(n, k, m):
                tile(ALL, ALL, Scratch())
            else:
                blas.on_one_thread(partial(tile, ALL, ALL, Scratch()))
        return
    blocks = cut_rows(n, max(1, k, min(m, width)))
    while len(blocks) * len(cut(m, width)) < FEW and width > SHORT:
        width //= 2
    work = Work()
    work.tasks += (partial(tile, rows, columns) for rows in blocks for columns in cut(m, width))
    work.run()
