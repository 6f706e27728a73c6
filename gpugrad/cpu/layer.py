"""The gradients of a layer: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz, from dz as it is computed.

All of dz is kept for layers that are cut into tiles, up to a fixed size, and never beyond it.

A small layer is one block, computed by the calling thread; of a larger one, dw and dx are a task
each. A tall layer is cut into blocks of rows, whose dz is in cache for db, dx and dw. Any other is
cut into tiles of dx and of dw.

Where the BLAS's own threads change no bit, layers of up to some million elements keep them: dz is
computed, then each product at once. Elsewhere the workers' threads, which sleep between calls, take
30 µs to wake, so that plain NumPy expressions can be faster on cores that nobody else uses.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gpugrad.cpu import products, sums, threads
from gpugrad.cpu.arithmetic import FLOAT64, accumulator, store
from gpugrad.cpu.cuts import BLOCK, MAX_RUNS, MIN_ROWS, cut, cut_rows, runs
from gpugrad.cpu.products import (
    PARTS_BYTES,
    Part,
    chunk,
    multiply,
    multiply_in_pieces,
    multiply_in_tiles,
    operand,
    part_of,
    takes,
    transposed,
)
from gpugrad.cpu.scratch import Array, Compute, Scratch, take
from gpugrad.cpu.sums import column_sum, sum_rows
from gpugrad.cpu.workers import Work

ALL = slice(None)
SMALL = 1 << 22  # multiply-adds of a product: 160³, which takes as long as another thread to wake
WHOLE, WHOLE_SQUARE = 1 << 20, 1 << 22  # elements of x and of y where products are not cut
SQUARE = 4  # times as many rows as columns, at most
MIDDLE = 1 << 24  # multiply-adds of a product that is not worth more than one task
STRIP = 1 << 16  # elements of dz that a task computes: 40 µs
FEW_RUNS = 4  # of blocks: where no more fit into memory, tiles give more cores their work,
FEW_RUNS_HELD = 16  # and where they can have all of dz, even in the place of more runs
HELD = 1 << 22  # elements of dz that are kept for all tiles; of more, each tile computes its own

# Computes dz of a block from dy, y and z, into a buffer or into `out` if that is given.
Gradient = Callable[..., Array]


class Layer(NamedTuple):
    """What a layer's gradients are computed from, and where they are written or added to."""

    dz: Callable[..., Array]
    x: Array
    w: Array
    dx: Array | None
    dw: Array | None
    db: Array | None
    accumulate: Collection[str]


# ---- which way a layer is computed


def at_once(
    block: Callable[[bool, bool], Compute],
    n: int,
    k: int,
    m: int,
    dtype: np.dtype[Any],
    *,
    whole: bool,
    may_be_large: bool,
) -> Compute | None:
    """Return what computes a layer by whole products; None for one that is cut into tasks.

    Parameters
    ----------
    block : function
        Returns what computes a layer: whether by products of the same bits on any number of the
        BLAS's threads, and whether it is large. With a `Work` as its last argument, that computes
        the products in pieces.
    dtype
        That of the operands.
    whole : bool
        Whether there are such products.
    may_be_large : bool
        Whether they are to be taken for a layer that is not small, too.
    """
    if n * k * m <= SMALL and n * max(k, m) <= 2 * BLOCK:
        if threads.is_unthreaded(n, k, m, whole=whole):
            return block(False, False)
        if not whole:
            return partial(threads.on_one_thread, block(False, False))
        return _on_blas_threads(block(True, False), accumulator(dtype), large=False)
    if whole and may_be_large and _fits(n, k, m, dtype):
        return _on_blas_threads(block(True, True), accumulator(dtype), large=True)
    return None


def _on_blas_threads(compute: Compute, dtype: np.dtype[Any], *, large: bool) -> Compute:
    """Return what computes on as many of the BLAS's threads as there are to be.

    If that is one, workers compute pieces of the products of a large layer.
    """

    def on_threads(*arrays: Any) -> None:
        number = threads.libraries().threads()
        wanted = threads.allowed(number, dtype)
        if large and wanted == 1:
            compute(*arrays, Work())
        elif wanted == number:
            compute(*arrays)
        else:
            threads.on_threads(wanted, compute, *arrays)

    return on_threads


def _fits(n: int, k: int, m: int, dtype: np.dtype[Any]) -> bool:
    """Return whether a layer is so small that its products are computed whole.

    Of a larger one, blocks of rows that stay in cache take less time than whole matrices.
    """
    widest = max(k, m)
    if dtype != accumulator(dtype):  # all operands are copied
        return n * widest <= 4 * BLOCK and k * m <= 8 * BLOCK
    return n * widest <= (WHOLE_SQUARE if n <= SQUARE * widest else WHOLE)


def bind(
    gradient: Gradient,
    x: Array,
    w: Array,
    outputs: Mapping[str, Array],
    accumulate: Collection[str],
    *,
    computed: bool,
    whole: bool,
) -> Compute:
    """Return what computes dx (n, k), dw (k, m) and db (m,), as far as they are wanted.

    Parameters
    ----------
    gradient : function
        Returns a block of dz, from blocks of dy, y and z, a Scratch and perhaps a buffer.
    x, w, outputs
        Arrays like those of the calls.
    computed : bool
        Whether dz is; else dy is dz itself.
    whole : bool
        Whether products with the same bits on any number of threads are to be taken where there
        are some.

    Returns
    -------
    function
        Of dy, y, z, x, w, dx, dw and db; y, z and what is not wanted may be None.
    """
    (n, k), m = x.shape, w.shape[1]
    if not n:
        return partial(_no_rows, accumulate)
    dtype = accumulator(w.dtype)
    products_wanted = not outputs.keys() <= {"db"}
    block = partial(_bind_block, gradient, x, w, outputs, accumulate, computed)
    whole = whole and threads.same_bits(n, k, m, dtype)
    compute = at_once(block, n, k, m, w.dtype, whole=whole, may_be_large=products_wanted)
    if compute is not None:
        return compute
    held = computed and n * m <= HELD
    most = MAX_RUNS
    if "dw" in outputs:
        most = min(most, PARTS_BYTES // max(1, w.size * dtype.itemsize))
    add_tasks: Callable[[Work, Layer, Scratch], None]
    if not products_wanted:
        add_tasks = _sum_alone
    elif n * k * m <= MIDDLE and n * max(k, m) <= 4 * BLOCK:
        add_tasks = _in_two_tasks
    elif n >= 4 * MIN_ROWS and most >= (FEW_RUNS_HELD if held else FEW_RUNS):
        add_tasks = partial(_in_blocks, most)
    else:
        add_tasks = partial(_in_tiles, computed, held)

    def in_tasks(
        dy: Array,
        y: Array | None,
        z: Array | None,
        x: Array,
        w: Array,
        dx: Array | None,
        dw: Array | None,
        db: Array | None,
    ) -> None:
        def dz(rows: slice, columns: slice, scratch: Scratch, out: Array | None = None) -> Array:
            at = rows, columns
            one, other = None if y is None else y[at], None if z is None else z[at]
            return gradient(dy[at], one, other, scratch, out)

        work = Work()
        with take() as shared:
            add_tasks(work, Layer(dz, x, w, dx, dw, db, accumulate), shared)
            work.run()

    return in_tasks


def _no_rows(accumulate: Collection[str], *arrays: Any) -> None:
    for name, result in zip(("dw", "db"), arrays[-2:], strict=True):
        if result is not None and name not in accumulate:
            result.fill(0)


# ---- at once


def _bind_block(
    gradient: Gradient,
    x: Array,
    w: Array,
    outputs: Mapping[str, Array],
    accumulate: Collection[str],
    computed: bool,
    whole: bool,
    large: bool,
) -> Compute:
    """Return what computes dz, then each product at once.

    dz is left to this thread: beside the BLAS's threads, which spin, a worker takes longer to wake
    than it saves. With them a layer of 1024 × 256 × 256 took 0.98 ms, and 0.86 without.
    """
    (n, k), m, dtype = x.shape, w.shape[1], accumulator(w.dtype)
    add_dx, add_dw, add_db = (name in accumulate for name in ("dx", "dw", "db"))
    copy_x, copy_w = not takes(x, dtype), not takes(w, dtype)
    to_dx = products.bind(n, m, k, outputs.get("dx"), dtype, add=add_dx, whole=whole)
    to_dw = products.bind(k, n, m, outputs.get("dw"), dtype, add=add_dw, whole=whole)
    to_db = sums.bind_columns(n, outputs["db"], add=add_db) if "db" in outputs else None
    in_strips = large and computed and n * m > BLOCK

    @np.errstate(all="ignore")
    def block(
        dy: Array,
        y: Array | None,
        z: Array | None,
        x: Array,
        w: Array,
        dx: Array | None,
        dw: Array | None,
        db: Array | None,
        work: Work | None = None,
    ) -> None:
        with take() as scratch:
            if in_strips:
                dz = _in_strips(gradient, dy, y, z, dtype, db, add_db, scratch)
            else:
                dz = gradient(dy, y, z, scratch)
                if to_db is not None:
                    to_db(dz, db)
            if dx is not None:
                turned = operand(w, "w", scratch).T if copy_w else w.T
                if work is None:
                    to_dx(dz, turned, dx, scratch)
                else:
                    multiply_in_pieces(work, dz, turned, dx, add=add_dx)
            if dw is not None:
                turned = operand(x, "x", scratch).T if copy_x else x.T
                if work is None:
                    to_dw(turned, dz, dw, scratch)
                else:
                    multiply_in_pieces(work, turned, dz, dw, add=add_dw)
            if work is not None:
                work.run()

    return block


def _in_strips(
    gradient: Gradient,
    dy: Array,
    y: Array | None,
    z: Array | None,
    dtype: np.dtype[Any],
    db: Array | None,
    add: bool,
    scratch: Scratch,
) -> Array:
    """Compute all of dz strip by strip, and sum it into db while it is in cache."""
    n, m = dy.shape
    dz, total = scratch.array("whole", (n, m), dtype), np.zeros(m, FLOAT64)
    for rows in cut(n, max(1, BLOCK // m)):
        one, other = None if y is None else y[rows], None if z is None else z[rows]
        gradient(dy[rows], one, other, scratch, dz[rows])
        if db is not None:
            total += column_sum(dz[rows])
    if db is not None:
        store(total, db, add=add)
    return dz


# ---- in tasks


def _sum_alone(work: Work, layer: Layer, _: Scratch) -> None:
    """Add tasks that sum dz, if db is wanted."""
    if layer.db is not None:
        add = "db" in layer.accumulate
        sum_rows(work, layer.dz, len(layer.x), layer.db, add=add)


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
            store(column_sum(dz_whole), db, add="db" in accumulate)

    work.tasks += [left] * (dw is not None) + [right] * (dx is not None or db is not None)


def _in_blocks(most: int, work: Work, layer: Layer, shared: Scratch) -> None:
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


def _in_tiles(computed: bool, hold: bool, work: Work, layer: Layer, shared: Scratch) -> None:
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
                store(column_sum(at_once), db, add=add)
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
