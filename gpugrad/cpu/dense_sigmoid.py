"""y = σ(x w + b)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu import again, arithmetic, blas, own_threads
from gpugrad.cpu.arithmetic import wide
from gpugrad.cpu.cuts import BLOCK, cut, cut_rows
from gpugrad.cpu.products import (
    FEW,
    LONG,
    NARROW,
    SHORT,
    chunk,
    is_small,
    is_unthreaded,
    multiply,
    operand,
)
from gpugrad.cpu.scratch import Array, Scratch, take
from gpugrad.cpu.workers import Work


@np.errstate(all="ignore")
def _in_one_block(
    x: Array, w: Array, b: Array | None, y: Array, product: Callable[..., None] = multiply
) -> None:
    """Compute everything at once."""
    dtype = arithmetic.accumulator(x.dtype)
    with take() as scratch:
        z = y if y.dtype == dtype and y.flags.carray else scratch.array("z", y.shape, dtype)
        product(operand(x, "x", scratch), operand(w, "w", scratch), z, scratch, add=False)
        _finish(z, b, y, scratch)


def _finish(z: Array, b: Array | None, y: Array, scratch: Scratch) -> None:
    """Write σ(z + b) into y, which may be z; z is used up."""
    if b is None:
        np.negative(z, z)
    else:
        np.subtract(np.negative(wide(b, "b", scratch)), z, z)
    arithmetic.sigmoid_of_negated(z, y, scratch)


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
        _finish(z, None if b is None else b[columns], out, scratch)

    (n, k), m, width = x.shape, w.shape[1], LONG
    dtype = arithmetic.accumulator(x.dtype)
    whole = own_threads.same_bits(n, k, m, dtype) and not own_threads.is_square(x, w)
    if is_small(n, k, m):
        if is_unthreaded(n, k, m, own_threads.UNCUT if whole else NARROW):
            _in_one_block(x, w, b, y)
        elif whole:
            small = partial(_in_one_block, x, w, b, y, own_threads.multiply_whole)
            own_threads.run(small, dtype)
        else:
            blas.on_one_thread(partial(_in_one_block, x, w, b, y))
        return
    if whole and n * m <= BLOCK and own_threads.fits(n, k, m, x.dtype):
        # Of more elements workers compute σ sooner: 1024 × 256 × 256 took 0.54 ms, and so 0.60.
        _in_one_block(x, w, b, y, own_threads.multiply_at_once)
        return
    blocks = cut_rows(n, max(1, k, min(m, width)))
    while len(blocks) * len(cut(m, width)) < FEW and width > SHORT:
        width //= 2
    work = Work()
    work.tasks += (partial(tile, rows, columns) for rows in blocks for columns in cut(m, width))
    work.run()


def repeated(
    compute: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Array],
    accumulate: tuple[str, ...],
) -> Callable[..., None]:
    """Give what computes calls like this one in the place of `compute`."""
    if accumulate or not outputs["y"].flags.carray:
        return compute
    x, (k, m) = inputs["x"], inputs["w"].shape
    return again.forward(len(x), k, m, x.dtype, compute)
