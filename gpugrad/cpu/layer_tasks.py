"""The gradients of a layer in tasks: blocks of rows, tiles of the products, sums of dz.

All of dz is kept for layers that are cut into tiles, up to a fixed size, and never beyond it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from gpugrad.cpu.arithmetic import accumulator, store
from gpugrad.cpu.cuts import BLOCK, cut, cut_rows, parts, runs
from gpugrad.cpu.products import (
    Part,
    chunk,
    multiply,
    multiply_in_tiles,
    operand,
    part_of,
    transposed,
)
from gpugrad.cpu.scratch import Array, Names, Scratch
from gpugrad.cpu.sums import column_sum, sum_rows
from gpugrad.cpu.workers import Work

# Computes dz of a block from dy, y and z, into a buffer of a Scratch, or into one more argument.
Gradient = Callable[..., Array]

ALL = slice(None)
STRIP = 1 << 16  # elements of dz that a task computes: 40 µs


class Layer(NamedTuple):
    """What a layer's gradients are computed from, and where they are written or added to."""

    gradient: Gradient
    accumulate: Names
    dy: Array
    y: Array
    z: Array
    x: Array
    w: Array
    dx: Array
    dw: Array
    db: Array

    def dz(self, rows: slice, columns: slice, scratch: Scratch) -> Array:
        """Compute a block of dz."""
        return self.gradient(*parts((rows, columns), self.dy, self.y, self.z), scratch)

    def adds(self, name: str) -> bool:
        """Return whether a result is added to."""
        return name in self.accumulate


def in_sums(work: Work, layer: Layer, _: Scratch) -> None:
    """Add tasks that sum dz."""
    sum_rows(work, layer.dz, len(layer.x), layer.db, add=layer.adds("db"))


def in_blocks(most: int, work: Work, layer: Layer, shared: Scratch) -> None:
    """Add tasks that are runs of blocks, at most so many, each with its own part of dw and db."""
    *_, x, w, dx, dw, db = layer
    tasks = runs(cut_rows(len(x), max(1, *w.shape)), most=most)
    if dw is not None:
        dw_parts = shared.array("dw", (len(tasks), *w.shape), accumulator(w.dtype))
        work.sum(dw_parts, dw, add=layer.adds("dw"))
    if db is not None:
        db_parts = work.parts(len(tasks), db, add=layer.adds("db"))

    def run_of_blocks(i: int, run: list[slice], scratch: Scratch) -> None:
        for j, rows in enumerate(run):
            dz_block = layer.dz(rows, ALL, scratch)
            if dx is not None:
                w_block = operand(w, "w", scratch)
                multiply(dz_block, w_block.T, dx[rows], scratch, add=layer.adds("dx"))
            if dw is not None:
                x_block = operand(x[rows], "x", scratch)
                multiply(x_block.T, dz_block, dw_parts[i], scratch, add=j > 0)
            if db is not None:
                db_parts[i] += column_sum(dz_block)

    work.tasks += (partial(run_of_blocks, i, run) for i, run in enumerate(tasks))


def in_tiles(computed: bool, held: bool, work: Work, layer: Layer, shared: Scratch) -> None:
    """Add tasks that are tiles of the products, and strips of dz to sum.

    `computed` says whether dz is, and `held` whether all of it is kept.
    """
    *_, x, w, dx, dw, db = layer
    n, m = len(x), w.shape[1]
    dz: Part = layer.dz
    if held:
        dz = _hold(layer, shared)
    elif db is not None:
        sum_rows(work, dz, n, db, add=layer.adds("db"))
    length = chunk(x.dtype, computed=computed and not held)
    if dw is not None:
        left, add = transposed(part_of(x, "x")), layer.adds("dw")
        multiply_in_tiles(work, left, dz, n, length, dw, shared, add=add, computed="right")
    if dx is not None:
        right, add = transposed(part_of(w, "w")), layer.adds("dx")
        multiply_in_tiles(work, dz, right, m, length, dx, shared, add=add, computed="left")


def _hold(layer: Layer, shared: Scratch) -> Part:
    """Compute all of dz, and sum it into db if that is wanted."""
    (n, m), db, add = layer.dy.shape, layer.db, layer.adds("db")
    if n * m <= BLOCK:  # at once: other threads would take as long to wake
        with np.errstate(all="ignore"):
            at_once = layer.dz(ALL, ALL, shared)
            if db is not None:
                store(column_sum(at_once), db, add=add)
        return part_of(at_once, "dz")
    whole = shared.array("whole", (n, m), accumulator(layer.dy.dtype))
    strips, work = cut(n, max(1, STRIP // max(1, m))), Work()
    db_parts = None if db is None else work.parts(len(strips), db, add=add)

    def strip(i: int, rows: slice, scratch: Scratch) -> None:
        block = layer.dz(rows, ALL, scratch)
        np.copyto(whole[rows], block)
        if db_parts is not None:
            db_parts[i] = column_sum(block)

    work.tasks += (partial(strip, i, rows) for i, rows in enumerate(strips))
    work.run()
    return part_of(whole, "dz")
