"""Sums over the rows of a matrix that is given block by block."""

from functools import partial

import numpy as np

from gpugrad.cpu import blas
from gpugrad.cpu.arithmetic import FLOAT64, column_sum, sum_columns
from gpugrad.cpu.cuts import BLOCK, MOST_RUNS, cut, runs
from gpugrad.cpu.products import PARTS_BYTES, Part
from gpugrad.cpu.scratch import Array, Scratch
from gpugrad.cpu.workers import Work

STRIP = 2048  # columns of a block at most
UNTHREADED = 1 << 13  # elements whose sum OpenBLAS takes one thread for
LEAST_RUN = 4  # blocks a task: fewer are done before another thread is awake


def sum_at_once(block: Array, out: Array, *, add: bool) -> None:
    """Sum a small block (rows, m) over its rows into out (m,), on this thread."""
    if block.size <= UNTHREADED and blas.leaves_small_products_alone():
        sum_columns(block, out, add=add)
    else:
        blas.on_one_thread(partial(sum_columns, block, out, add=add))


def sum_rows(work: Work, block: Part, rows: int, out: Array, *, add: bool) -> None:
    """Add tasks that sum a matrix (rows, m), given by its blocks, over its rows into out (m,)."""
    strips = cut(out.size, STRIP)
    blocks = cut(rows, max(1, BLOCK // max(1, strips[0].stop)))
    most = max(1, min(MOST_RUNS, PARTS_BYTES // max(1, 8 * out.size)))
    runs_of_blocks = runs(blocks, LEAST_RUN, most)
    parts = np.zeros((len(runs_of_blocks), out.size), FLOAT64)
    for run, part in zip(runs_of_blocks, parts, strict=True):
        for columns in strips:
            work.tasks.append(partial(_sum_run, block, run, columns, part[columns]))
    work.sum(parts, out, add=add)


def _sum_run(block: Part, run: list[slice], columns: slice, total: Array, scratch: Scratch) -> None:
    for rows in run:
        total += column_sum(block(rows, columns, scratch))
