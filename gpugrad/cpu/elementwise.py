"""Functions of arrays of any one shape, block by block."""

from collections.abc import Callable
from functools import partial

import numpy as np

from gpugrad.cpu.cuts import BLOCK, cut, runs
from gpugrad.cpu.scratch import Array, Scratch, take
from gpugrad.cpu.workers import Work

LEAST_RUN = 2  # blocks a task: fewer are done before another thread is awake


def in_blocks(function: Callable[..., object], *arrays: Array | None) -> None:
    """Call function(*blocks, scratch) for every block of the arrays; None stays None."""
    given = [array for array in arrays if array is not None]
    shape, size = given[0].shape, given[0].size
    if size <= BLOCK:
        with np.errstate(all="ignore"), take() as scratch:
            function(*arrays, scratch)
        return
    if all(array.flags.c_contiguous for array in given):
        views = [None if array is None else array.reshape(-1) for array in arrays]
        extent = size
    else:
        axis = shape.index(max(shape))
        views = [None if array is None else array.swapaxes(0, axis) for array in arrays]
        extent = shape[axis]

    @np.errstate(all="ignore")
    def run_of_blocks(run: list[slice], scratch: Scratch) -> None:
        for part in run:
            function(*(None if view is None else view[part] for view in views), scratch)

    tasks = runs(cut(extent, max(1, BLOCK * extent // size)), LEAST_RUN)
    work = Work()
    work.tasks += (partial(run_of_blocks, run) for run in tasks)
    work.run()
