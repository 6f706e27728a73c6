"""dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz from dz as it is computed.

All of dz is kept for layers that are cut into tiles, up to a fixed size, and never beyond it.

A small layer is one block, computed by the calling thread; of a larger one, dw and dx are a task
each. A tall layer is cut into blocks of rows, whose dz is in cache for db, dx and dw. Any other is
cut into tiles of dx and of dw.

Where the BLAS's own threads change no bit, layers of up to some million elements keep them: dz is
computed, then each product at once. Elsewhere the workers' threads, which sleep between calls, take
30 µs to wake, so that plain NumPy expressions can be faster on cores that nobody else uses.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from gpugrad.cpu import blas, own_threads
from gpugrad.cpu.arithmetic import FLOAT64, accumulator, column_sum, store, sum_columns
from gpugrad.cpu.cuts import BLOCK, LEAST_ROWS, MOST_RUNS, cut, cut_rows, runs
from gpugrad.cpu.products import (
    NARROW,
    PARTS_BYTES,
    Part,
    chunk,
    is_small,
    is_unthreaded,
    multiply,
    multiply_in_tiles,
    operand,
    part_of,
    transposed,
)
from gpugrad.cpu.scratch import Array, Scratch, take
from gpugrad.cpu.sums import sum_rows
from gpugrad.cpu.workers import Work

ALL = slice(None)
MIDDLE = 1 << 24  # multiply-adds of a product that is not worth more than one task
STRIP = 1 << 16  # elements of dz that a task computes: 40 µs
FEW_RUNS = 4  # of blocks: where no more fit into memory, tiles give more cores their work,
FEW_RUNS_HELD = 16  # and where they can have all of dz, even in the place of more runs
HELD = 1 << 22  # elements of dz that are kept for all tiles; of more, each tile computes its own


class Layer(NamedTuple):
    """What a layer's gradients are computed from, and where they are written or added to."""

    dz: Callable[..., Array]
    x: Array
    w: Array
    dx: Array | None
    dw: Array | None
    db: Array | None
    accumulate: tuple[str, ...]


def layer_backward(
    dz: Array | Callable[..., Array],
    x: Array,
    w: Array,
    dx: Array | None,
    dw: Array | None,
    db: Array | None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,), as far as they are given.

    dz is a matrix (n, m), or a function that computes blocks of it, into a buffer if it is given
    one after the Scratch. The way is chosen by shapes, dtype and the BLAS's kernels alone.
    """
    (n, k), m = x.shape, w.shape[1]
    computed = not isinstance(dz, np.ndarray)
    layer = Layer(dz if computed else part_of(dz, "dz"), x, w, dx, dw, db, accumulate)
    if not n:
        for name, result in (("dw", dw), ("db", db)):
            if result is not None and name not in accumulate:
                result.fill(0)
        return
    dtype = accumulator(w.dtype)
    whole = own_threads.same_bits(n, k, m, dtype)
    if whole and not computed:
        whole = not own_threads.is_square(dz, x.T) and not own_threads.is_square(dz, w.T)
    if is_small(n, k, m):
        if is_unthreaded(n, k, m, own_threads.UNCUT if whole else NARROW):
            _in_one_block(layer)
        elif whole:
            small = partial(_in_one_block, layer, own_threads.multiply_whole)
            own_threads.run(small, dtype)
        else:
            blas.on_one_thread(partial(_in_one_block, layer))
        return
    if whole and (dx is not None or dw is not None) and own_threads.fits(n, k, m, w.dtype):
        _whole(layer, computed=computed)
        return
    work = Work()
    hold = computed and n * m <= HELD
    most = MOST_RUNS
    if dw is not None:
        most = min(most, PARTS_BYTES // max(1, w.size * dtype.itemsize))
    with take() as scratch:
        if dx is None and dw is None:
            if db is not None:
                sum_rows(work, layer.dz, n, db, add="db" in accumulate)
        elif n * k * m <= MIDDLE and n * max(k, m) <= 4 * BLOCK:
            _in_two_tasks(work, layer, scratch)
        elif n >= 4 * LEAST_ROWS and most >= (FEW_RUNS_HELD if hold else FEW_RUNS):
            _in_blocks(work, layer, most, scratch)
        else:
            _in_tiles(work, layer, scratch, computed=computed, hold=hold)
        work.run()


@np.errstate(all="ignore")
def _in_one_block(layer: Layer, product: Callable[..., None] = multiply) -> None:
    """Compute everything at once."""
    dz, x, w, dx, dw, db, accumulate = layer
    with take() as scratch:
        dz_block = dz(ALL, ALL, scratch)
        if dx is not None:
            w = operand(w, "w", scratch)
            product(dz_block, w.T, dx, scratch, add="dx" in accumulate)
        if dw is not None:
            x = operand(x, "x", scratch)
            product(x.T, dz_block, dw, scratch, add="dw" in accumulate)
        if db is not None:
            sum_columns(dz_block, db, add="db" in accumulate)


@np.errstate(all="ignore")
def _whole(layer: Layer, *, computed: bool) -> None:
    """Compute dz, then each product at once, on the BLAS's threads or by pieces on the workers.

    dz is left to this thread: beside the BLAS's threads, which spin, a worker takes longer to wake
    than it saves. With them a layer of 1024 × 256 × 256 took 0.98 ms, and 0.86 without.
    """
    dz, x, w, dx, dw, db, accumulate = layer
    n, m = len(x), w.shape[1]
    with take() as scratch:
        if computed and n * m > BLOCK:
            dz_whole = scratch.array("whole", (n, m), accumulator(w.dtype))
            total = np.zeros(m, FLOAT64)
            for rows in cut(n, max(1, BLOCK // m)):
                dz(rows, ALL, scratch, dz_whole[rows])
                if db is not None:
                    total += column_sum(dz_whole[rows])
            if db is not None:
                store(total, db, add="db" in accumulate)
        else:
            dz_whole = dz(ALL, ALL, scratch)
            if db is not None:
                sum_columns(dz_whole, db, add="db" in accumulate)
        products = []
        if dx is not None:
            products.append((dz_whole, operand(w, "w", scratch).T, dx, "dx" in accumulate))
        if dw is not None:
            products.append((operand(x, "x", scratch).T, dz_whole, dw, "dw" in accumulate))
        own_threads.multiply_all(products, scratch)


def _in_two_tasks(work: Work, layer: Layer, shared: Scratch) -> None:
    """Add a task for dw and one for dx and db."""
    dz, x, w, dx, dw, db, accumulate = layer
    with np.errstate(all="ignore"):
        dz_whole = dz(ALL, ALL, shared)

    def left(scratch: Scratch) -> None:
        x_block = operand(x, "x", scratch)
        multiply(x_block.T, dz_whole, dw, scratch, add="dw" in accumulate)

    def right(scratch: Scratch) -> None:
        if dx is not None:
            w_block = operand(w, "w", scratch)
            multiply(dz_whole, w_block.T, dx, scratch, add="dx" in accumulate)
        if db is not None:
            sum_columns(dz_whole, db, add="db" in accumulate)

    work.tasks += [left] * (dw is not None) + [right] * (dx is not None or db is not None)


def _in_blocks(work: Work, layer: Layer, most: int, shared: Scratch) -> None:
    """Add tasks that are runs of blocks, at most so many, each with its own part of dw and db."""
    dz, x, w, dx, dw, db, accumulate = layer
    dtype = accumulator(w.dtype)
    parts = runs(cut_rows(len(x), max(1, *w.shape)), most=most)
    dw_parts = shared.array("dw", (len(parts) if dw is not None else 0, *w.shape), dtype)
    db_parts = np.zeros((len(parts) if db is not None else 0, w.shape[1]), FLOAT64)

    def run_of_blocks(i: int, run: list[slice], scratch: Scratch) -> None:
        for j, rows in enumerate(run):
            dz_block = dz(rows, ALL, scratch)
            if dx is not None:
                w_block = operand(w, "w", scratch)
                multiply(dz_block, w_block.T, dx[rows], scratch, add="dx" in accumulate)
            if dw is not None:
                x_block = operand(x[rows], "x", scratch)
                multiply(x_block.T, dz_block, dw_parts[i], scratch, add=j > 0)
            if db is not None:
                db_parts[i] += column_sum(dz_block)

    work.tasks += (partial(run_of_blocks, i, run) for i, run in enumerate(parts))
    if dw is not None:
        work.sum(dw_parts, dw, add="dw" in accumulate)
    if db is not None:
        work.sum(db_parts, db, add="db" in accumulate)


def _in_tiles(work: Work, layer: Layer, shared: Scratch, *, computed: bool, hold: bool) -> None:
    """Add tasks that are tiles of the products, and strips of dz to sum.

    `computed` says whether dz is, and `hold` whether all of it is kept.
    """
    dz, x, w, dx, dw, db, accumulate = layer
    n, m = len(x), w.shape[1]
    if hold:
        whole = shared.array("whole", (n, m), accumulator(x.dtype))
        dz = _held(work, dz, whole, db, shared, add="db" in accumulate)
    elif db is not None:
        sum_rows(work, dz, n, db, add="db" in accumulate)
    length = chunk(x.dtype, computed=computed and not hold)
    if dw is not None:
        left, add = transposed(part_of(x, "x")), "dw" in accumulate
        multiply_in_tiles(work, left, dz, n, length, dw, shared, add=add, computed="right")
    if dx is not None:
        right, add = transposed(part_of(w, "w")), "dx" in accumulate
        multiply_in_tiles(work, dz, right, m, length, dx, shared, add=add, computed="left")


def _held(
    work: Work, dz: Part, whole: Array, db: Array | None, shared: Scratch, *, add: bool
) -> Part:
    """Have all of dz computed, and summed into db if that is wanted, before the tasks."""
    n, m = whole.shape
    if n * m <= BLOCK:  # at once: other threads would take as long to wake
        with np.errstate(all="ignore"):
            at_once = dz(ALL, ALL, shared)
            if db is not None:
                sum_columns(at_once, db, add=add)
        return part_of(at_once, "dz")
    strips = cut(n, max(1, STRIP // max(1, m)))
    db_parts = np.zeros((len(strips), m), FLOAT64)

    def rows_of_dz(i: int, rows: slice, scratch: Scratch) -> None:
        block = dz(rows, ALL, scratch)
        np.copyto(whole[rows], block)
        if db is not None:
            db_parts[i] = column_sum(block)

    work.before += (partial(rows_of_dz, i, rows) for i, rows in enumerate(strips))
    if db is not None:
        work.sum(db_parts, db, add=add)
    return part_of(whole, "dz")
