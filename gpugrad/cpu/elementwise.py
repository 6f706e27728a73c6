"""Functions of arrays of any one shape, block by block."""

from collections.abc import Callable
from functools import partial

import numpy as np

from gpugrad.cpu.cuts import BLOCK, cut, parts, runs
from gpugrad.cpu.scratch import Array, Compute, Scratch, take
from gpugrad.cpu.workers import Work

MIN_RUN = 2  # blocks a task: fewer are done before another thread is awake


def bind(function: Callable[..., object], *like: Array | None) -> Compute:
    """Return what calls function(*blocks, scratch) for every block of such arrays; None stays."""
    given = [array for array in like if array is not None]
    shape, size = given[0].shape, given[0].size

    @np.errstate(all="ignore")
    def at_once(*arrays: Array | None) -> None:
        with take() as scratch:
            function(*arrays, scratch)

    if size <= BLOCK:
        return at_once
    flat = all(array.flags.c_contiguous for array in given)
    axis = shape.index(max(shape))
    extent = size if flat else shape[axis]
    tasks = runs(cut(extent, max(1, BLOCK * extent // size)), MIN_RUN)

    @np.errstate(all="ignore")
    def run_of_blocks(views: list[Array | None], run: list[slice], scratch: Scratch) -> None:
        for part in run:
            function(*parts(part, *views), scratch)

    def in_blocks(*arrays: Array | None) -> None:
        views = [
            None if array is None else array.reshape(-1) if flat else array.swapaxes(0, axis)
            for array in arrays
        ]
        work = Work()
        work.tasks += (partial(run_of_blocks, views, run) for run in tasks)
        work.run()

    return in_blocks
