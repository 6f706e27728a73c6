"""Sums over the rows of a matrix: of a block in cache, and of a matrix block by block."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu import threads
from gpugrad.cpu.arithmetic import FLOAT64, store
from gpugrad.cpu.cuts import BLOCK, MAX_RUNS, cut, parts, runs
from gpugrad.cpu.products import PARTS_BYTES, Part
from gpugrad.cpu.scratch import Array, Compute, Scratch, take
from gpugrad.cpu.workers import Work

SUM_ROWS = 64  # that are added in float32 before float64 takes over
FEW_ROWS = 128  # that are added in float32 where there are no more
FEW_SUMS = 8  # of SUM_ROWS, which float32 adds up too
SUM_WIDTH = 64  # narrower rows are summed several side by side
STRIP = 2048  # columns of a block at most
UNTHREADED = 1 << 13  # elements whose sum OpenBLAS takes one thread for
MIN_RUN = 4  # blocks a task: fewer are done before another thread is awake


def bind(value: Callable[..., Array], rows: int, out: Array, *, add: bool) -> Compute:
    """Return what sums value(*matrices, scratch), of matrices (rows, m), over rows into out (m,).

    It is called with the matrices, each of which may be None, and out.
    """
    size = rows * len(out)
    if size > BLOCK:

        def in_blocks(*arrays: Any) -> None:
            *matrices, out = arrays

            def block(rows: slice, columns: slice, scratch: Scratch) -> Array:
                return value(*parts((rows, columns), *matrices), scratch)

            work = Work()
            sum_rows(work, block, rows, out, add=add)
            work.run()

        return in_blocks
    sum_into = bind_columns(rows, out, add=add)

    @np.errstate(all="ignore")
    def at_once(*arrays: Any) -> None:
        with take() as scratch:
            sum_into(value(*arrays[:-1], scratch), arrays[-1])

    if size <= UNTHREADED and threads.leaves_small_products_alone():
        return at_once
    return partial(threads.on_threads, 1, at_once)


def sum_rows(work: Work, block: Part, rows: int, out: Array, *, add: bool) -> None:
    """Add tasks that sum a matrix (rows, m), given by its blocks, over its rows into out (m,)."""
    strips = cut(out.size, STRIP)
    blocks = cut(rows, max(1, BLOCK // max(1, strips[0].stop)))
    most = max(1, min(MAX_RUNS, PARTS_BYTES // max(1, 8 * out.size)))
    runs_of_blocks = runs(blocks, MIN_RUN, most)
    totals = work.parts(len(runs_of_blocks), out, add=add)

    def sum_run(run: list[slice], columns: slice, total: Array, scratch: Scratch) -> None:
        for rows in run:
            total[columns] += column_sum(block(rows, columns, scratch))

    for run, total in zip(runs_of_blocks, totals, strict=True):
        work.tasks += (partial(sum_run, run, columns, total) for columns in strips)


def bind_columns(rows: int, out: Array, *, add: bool) -> Callable[[Array, Array], object]:
    """Return what writes or adds the sum of a block over its rows to a buffer like `out`."""
    if rows <= FEW_ROWS and not add and out.flags.carray and out.dtype.itemsize >= 4:
        dot: Callable[[Array, Array], object] = ones(rows, out.dtype).dot
        return dot
    return lambda block, out: store(column_sum(block), out, add=add)


def column_sum(block: Array) -> Array:
    """Sum a block (rows, m), in accumulator dtype, over its rows: (m,).

    A product with a row of ones sums 64 rows at a time in the block's dtype, and what it leaves
    is summed in float64: a quarter of the time that np.sum in float64 takes.
    """
    (rows, m), dtype = block.shape, block.dtype
    if rows <= FEW_ROWS:
        return ones(rows, dtype).dot(block)
    few = rows <= FEW_SUMS * SUM_ROWS  # float64 would take half of the time
    beside = 1 if few else max(1, SUM_WIDTH // max(1, m))
    pieces = rows // (SUM_ROWS * beside)
    head = pieces * SUM_ROWS * beside
    row, rest = ones(SUM_ROWS, dtype)[None], block[head:]
    parts = np.matmul(row, block[:head].reshape(pieces, SUM_ROWS, beside * m))
    if few:
        total = ones(pieces, dtype).dot(parts[:, 0])
        return total + ones(len(rest), dtype).dot(rest) if len(rest) else total
    sums = np.add.reduce(parts, axis=0, dtype=FLOAT64).reshape(beside, m)
    return np.add.reduce(sums, axis=0) + np.add.reduce(rest, axis=0, dtype=FLOAT64)


@functools.cache
def ones(number: int, dtype: np.dtype[Any]) -> Array:
    """Return a row of up to FEW_ROWS ones, which is not to be written."""
    return np.ones(number, dtype)
