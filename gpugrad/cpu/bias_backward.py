"""db = Σ_i dy."""

from gpugrad.cpu.products import part_of
from gpugrad.cpu.scratch import Array
from gpugrad.cpu.sums import sum_rows
from gpugrad.cpu.workers import Work


def bias_backward(dy: Array, db: Array, accumulate: tuple[str, ...] = ()) -> None:
    """Sum dy (n, m) over its rows into db (m,)."""
    work = Work()
    sum_rows(work, part_of(dy, "dy"), len(dy), db, add="db" in accumulate)
    work.run()
