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
from gpugrad.cpu.cuts import BLOCK, MAX_RUNS, MIN_ROWS, cut, cut_rows, parts, runs
from gpugrad.cpu.products import (
    PARTS_BYTES,
    Part,
    Product,
    chunk,
    multiply,
    multiply_in_pieces,
    multiply_in_tiles,
    multiply_whole,
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
    block: Callable[[Product], Compute],
    n: int,
    k: int,
    m: int,
    dtype: np.dtype[Any],
    *,
    whole: bool,
    may_be_large: bool,
) -> Compute | None:
    """Return what computes a layer by products that are not cut; None for one cut into tasks.

    Parameters
    ----------
    block : function
        Returns what computes a layer by a kind of products.
    dtype
        That of the operands.
    whole : bool
        Whether there are products of the same bits on any number of the BLAS's threads.
    may_be_large : bool
        Whether these are to be taken for a layer that is not small, too.
    """
    if is_small(n, k, m):
        if threads.is_unthreaded(n, k, m, whole=whole):
            return block(multiply)
        if not whole:
            return partial(threads.on_one_thread, block(multiply))
        return threads.bind(accumulator(dtype), block(multiply_whole))
    if whole and may_be_large and _fits(n, k, m, dtype):
        return threads.bind(accumulator(dtype), block(multiply_whole), block(multiply_in_pieces))
    return None


def is_small(n: int, k: int, m: int) -> bool:
    """Return whether a layer is computed on the calling thread."""
    return n * k * m <= SMALL and n * max(k, m) <= 2 * BLOCK


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
        Whether to take products of the same bits on any number of threads where there are some.

    Returns
    -------
    function
        Of dy, y, z, x, w, dx, dw and db; None for what is not read or not wanted.
    """
    (n, k), m = x.shape, w.shape[1]
    if not n or not outputs:
        return partial(_no_terms, accumulate)
    dtype, sum_alone = accumulator(w.dtype), outputs.keys() == {"db"}
    block = partial(_bind_block, gradient, x, w, outputs, accumulate, computed)
    whole = whole and threads.same_bits(n, k, m, dtype)
    compute = at_once(block, n, k, m, w.dtype, whole=whole, may_be_large=not sum_alone)
    if compute is not None:
        return compute
    held = computed and n * m <= HELD
    most = MAX_RUNS
    if "dw" in outputs:
        most = min(most, PARTS_BYTES // max(1, w.size * dtype.itemsize))
    add_tasks: Callable[[Work, Layer, Scratch], None]
    if sum_alone:
        add_tasks = _in_sums
    elif n * k * m <= MIDDLE and n * max(k, m) <= 4 * BLOCK:
        add_tasks = _in_two_tasks
    elif n >= 4 * MIN_ROWS and most >= (FEW_RUNS_HELD if held else FEW_RUNS):
        add_tasks = partial(_in_blocks, most)
    else:
        add_tasks = partial(_in_tiles, computed, held)

    def in_tasks(
        dy: Array, y: Array, z: Array, x: Array, w: Array, dx: Array, dw: Array, db: Array
    ) -> None:
        def dz(rows: slice, columns: slice, scratch: Scratch) -> Array:
            return gradient(*parts((rows, columns), dy, y, z), scratch)

        work = Work()
        with take() as shared:
            add_tasks(work, Layer(dz, x, w, dx, dw, db, accumulate), shared)
            work.run()

    return in_tasks


def _no_terms(accumulate: Collection[str], *arrays: Any) -> None:
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
    product: Product,
) -> Compute:
    """Return what computes dz, then each product at once.

    dz is left to this thread: beside the BLAS's threads, which spin, a worker takes longer to wake
    than it saves. With them a layer of 1024 × 256 × 256 took 0.98 ms, and 0.86 without.
    """
    (n, k), m, dtype = x.shape, w.shape[1], accumulator(w.dtype)
    copy_x, copy_w, add_db = not takes(x, dtype), not takes(w, dtype), "db" in accumulate
    in_strips = computed and n * m > BLOCK and not is_small(n, k, m)

    def to(name: str, rows: int, terms: int, columns: int) -> Product | None:
        if name not in outputs:
            return None
        out, add = outputs[name], name in accumulate
        return products.bind(product, rows, terms, columns, out, dtype, add=add)

    to_dx, to_dw = to("dx", n, m, k), to("dw", k, n, m)
    to_db = sums.bind_columns(n, outputs["db"], add=add_db) if "db" in outputs else None

    @np.errstate(all="ignore")
    def block(
        dy: Array, y: Array, z: Array, x: Array, w: Array, dx: Array, dw: Array, db: Array
    ) -> None:
        with take() as scratch:
            if in_strips:
                dz = _in_strips(gradient, dy, y, z, db, add_db, scratch)
            else:
                dz = gradient(dy, y, z, scratch)
                if to_db is not None:
                    to_db(dz, db)
            if to_dx is not None:
                to_dx(dz, (operand(w, "w", scratch) if copy_w else w).T, dx)
            if to_dw is not None:
                to_dw((operand(x, "x", scratch) if copy_x else x).T, dz, dw)

    return block


def _in_strips(
    gradient: Gradient, dy: Array, y: Array, z: Array, db: Array, add: bool, scratch: Scratch
) -> Array:
    """Compute all of dz strip by strip, and sum it into db while it is in cache."""
    n, m = dy.shape
    dz, total = scratch.array("whole", (n, m), accumulator(dy.dtype)), np.zeros(m, FLOAT64)
    for rows in cut(n, max(1, BLOCK // m)):
        gradient(*parts(rows, dy, y, z), scratch, dz[rows])
        if db is not None:
            total += column_sum(dz[rows])
    if db is not None:
        store(total, db, add=add)
    return dz


# ---- in tasks


def _in_sums(work: Work, layer: Layer, _: Scratch) -> None:
    """Add tasks that sum dz."""
    sum_rows(work, layer.dz, len(layer.x), layer.db, add="db" in layer.accumulate)


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
    tasks = runs(cut_rows(len(x), max(1, *w.shape)), most=most)
    dw_parts = shared.array("dw", (len(tasks) if dw is not None else 0, *w.shape), dtype)
    db_parts = None if db is None else work.parts(len(tasks), db, add="db" in accumulate)

    def run_of_blocks(i: int, run: list[slice], scratch: Scratch) -> None:
        for j, rows in enumerate(run):
            dz_block = dz(rows, ALL, scratch)
            if dx is not None:
                w_block = operand(w, "w", scratch)
                multiply(dz_block, w_block.T, dx[rows], scratch, add="dx" in accumulate)
            if dw is not None:
                x_block = operand(x[rows], "x", scratch)
                multiply(x_block.T, dz_block, dw_parts[i], scratch, add=j > 0)
            if db_parts is not None:
                db_parts[i] += column_sum(dz_block)

    work.tasks += (partial(run_of_blocks, i, run) for i, run in enumerate(tasks))
    if dw is not None:
        work.sum(dw_parts, dw, add="dw" in accumulate)


def _in_tiles(computed: bool, hold: bool, work: Work, layer: Layer, shared: Scratch) -> None:
    """Add tasks that are tiles of the products, and strips of dz to sum.

    `computed` says whether dz is, and `hold` whether all of it is kept.
    """
    dz, x, w, dx, dw, db, accumulate = layer
    n, m = len(x), w.shape[1]
    if hold:
        whole = shared.array("whole", (n, m), accumulator(x.dtype))
        dz = _held(dz, whole, db, shared, add="db" in accumulate)
    elif db is not None:
        sum_rows(work, dz, n, db, add="db" in accumulate)
    length = chunk(x.dtype, computed=computed and not hold)
    if dw is not None:
        left, add = transposed(part_of(x, "x")), "dw" in accumulate
        multiply_in_tiles(work, left, dz, n, length, dw, shared, add=add, computed="right")
    if dx is not None:
        right, add = transposed(part_of(w, "w")), "dx" in accumulate
        multiply_in_tiles(work, dz, right, m, length, dx, shared, add=add, computed="left")


def _held(dz: Part, whole: Array, db: Array | None, shared: Scratch, *, add: bool) -> Part:
    """Compute all of dz, and sum it into db if that is wanted."""
    n, m = whole.shape
    if n * m <= BLOCK:  # at once: other threads would take as long to wake
        with np.errstate(all="ignore"):
            at_once = dz(ALL, ALL, shared)
            if db is not None:
                store(column_sum(at_once), db, add=add)
        return part_of(at_once, "dz")
    strips, before = cut(n, max(1, STRIP // max(1, m))), Work()
    db_parts = None if db is None else before.parts(len(strips), db, add=add)

    def rows_of_dz(i: int, rows: slice, scratch: Scratch) -> None:
        block = dz(rows, ALL, scratch)
        np.copyto(whole[rows], block)
        if db_parts is not None:
            db_parts[i] = column_sum(block)

    before.tasks += (partial(rows_of_dz, i, rows) for i, rows in enumerate(strips))
    before.run()
    return part_of(whole, "dz")
