"""db = Σ_i dy."""

import numpy as np

from gpugrad.cpu.cuts import BLOCK
from gpugrad.cpu.products import operand, part_of
from gpugrad.cpu.scratch import Array, take
from gpugrad.cpu.sums import sum_at_once, sum_rows
from gpugrad.cpu.workers import Work


def bias_backward(dy: Array, db: Array, accumulate: tuple[str, ...] = ()) -> None:
    """Sum dy (n, m) over its rows into db (m,)."""
    if dy.size <= BLOCK:
        with np.errstate(all="ignore"), take() as scratch:
            sum_at_once(operand(dy, "dy", scratch), db, add="db" in accumulate)
        return
    work = Work()
    sum_rows(work, part_of(dy, "dy"), len(dy), db, add="db" in accumulate)
    work.run()
