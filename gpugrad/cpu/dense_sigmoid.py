"""y = σ(x w + b)."""

from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu import activation, layer, products, threads
from gpugrad.cpu.arithmetic import accumulator, wide
from gpugrad.cpu.cuts import BLOCK, cut, cut_rows
from gpugrad.cpu.products import (
    FEW,
    LONG,
    SHORT,
    Product,
    chunk,
    is_square,
    multiply,
    operand,
    takes,
)
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch, take
from gpugrad.cpu.workers import Work


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes y (n, m) from x (n, k), w (k, m) and b (m,) or None."""
    x, w, y = inputs["x"], inputs["w"], outputs["y"]
    (n, k), m = x.shape, w.shape[1]

    def way(whole: bool) -> Compute:
        block = partial(_bind_block, x, w, y)
        # Of more elements workers compute σ sooner: 1024 × 256 × 256 took 0.54 ms, and so 0.60.
        large = n * m <= BLOCK
        at_once = layer.at_once(block, (n, k, m), x.dtype, whole=whole, large=large)
        return at_once or _bind_tiles(n, k, m, x.dtype)

    whole = threads.same_bits(n, k, m, accumulator(x.dtype))
    usual = way(whole)
    if n != m or not whole:
        return usual
    of_squares = way(False)

    def compute(x: Array, w: Array, b: Array, y: Array) -> None:
        (of_squares if is_square(x, w) else usual)(x, w, b, y)

    return compute


def _bind_block(x: Array, w: Array, y: Array, product: Product) -> Compute:
    """Return what computes everything at once."""
    (n, k), m, dtype = x.shape, w.shape[1], accumulator(x.dtype)
    copy_x, copy_w = not takes(x, dtype), not takes(w, dtype)
    in_place = y.dtype == dtype and y.flags.carray
    like = y if in_place else np.empty((n, m), dtype)
    to_z = products.bind(product, n, k, m, like, dtype, add=False)

    @np.errstate(all="ignore")
    def block(x: Array, w: Array, b: Array, y: Array) -> None:
        with take() as scratch:
            z = y if in_place else scratch.array("z", y.shape, dtype)
            x = operand(x, "x", scratch) if copy_x else x
            w = operand(w, "w", scratch) if copy_w else w
            to_z(x, w, z)
            _finish(z, b, y, scratch)

    return block


def _bind_tiles(n: int, k: int, m: int, dtype: np.dtype[Any]) -> Compute:
    """Return what computes tiles of y, a task each."""
    blocks, width = cut_rows(n, max(1, k, min(m, LONG))), LONG
    while len(blocks) * len(cut(m, width)) < FEW and width > SHORT:
        width //= 2
    tiles = [(rows, columns) for rows in blocks for columns in cut(m, width)]
    chunks = cut(k, chunk(dtype, computed=False))

    def in_tiles(x: Array, w: Array, b: Array, y: Array) -> None:
        def tile(rows: slice, columns: slice, scratch: Scratch) -> None:
            out = y[rows, columns]
            z = scratch.array("z", out.shape, accumulator(dtype))
            for i, terms in enumerate(chunks):
                left = operand(x[rows, terms], "x", scratch)
                right = operand(w[terms, columns], "w", scratch)
                multiply(left, right, z, scratch, add=i > 0)
            _finish(z, None if b is None else b[columns], out, scratch)

        work = Work()
        work.tasks += (partial(tile, *one) for one in tiles)
        work.run()

    return in_tiles


def _finish(z: Array, b: Array, y: Array, scratch: Scratch) -> None:
    """Write σ(z + b) into y, which may be z; z is used up."""
    if b is not None:
        np.add(z, wide(b, "b", scratch), z)
    activation.sigma(z, y, scratch)
