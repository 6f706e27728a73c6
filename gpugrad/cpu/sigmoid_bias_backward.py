"""dz = dy · y · (1 − y) and db = Σ_i dz in one pass."""

import numpy as np

from gpugrad.cpu.arithmetic import sigmoid_gradient, store
from gpugrad.cpu.cuts import BLOCK
from gpugrad.cpu.scratch import Array, Scratch, take
from gpugrad.cpu.sums import sum_at_once, sum_rows
from gpugrad.cpu.workers import Work


def sigmoid_bias_backward(
    dy: Array,
    y: Array | None,
    z: Array | None,
    dz: Array,
    db: Array,
    accumulate: tuple[str, ...] = (),
) -> None:
    """Write dz (n, m) and its column sums db (m,)."""

    def block(rows: slice, columns: slice, scratch: Scratch) -> Array:
        part = (rows, columns)
        value = sigmoid_gradient(
            dy[part],
            None if y is None else y[part],
            None if z is None else z[part],
            scratch,
        )
        store(value, dz[part], add="dz" in accumulate)
        return value

    if dy.size <= BLOCK:
        with np.errstate(all="ignore"), take() as scratch:
            value = sigmoid_gradient(dy, y, z, scratch)
            store(value, dz, add="dz" in accumulate)
            sum_at_once(value, db, add="db" in accumulate)
        return
    work = Work()
    sum_rows(work, block, len(dy), db, add="db" in accumulate)
    work.run()
