"""A layer that is computed again and again: what its shapes decide is decided once.

Of a layer that is one block, checks and choices take as long as NumPy takes for the rest. The steps
here are those of layer_backward, in its order and with its bits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.cpu import blas, own_threads
from gpugrad.cpu.arithmetic import FEW_ROWS, FLOAT32, FLOAT64, ones, sum_columns, unit
from gpugrad.cpu.cuts import BLOCK
from gpugrad.cpu.own_threads import STRETCH, UNCUT
from gpugrad.cpu.products import NARROW, is_small, is_unthreaded
from gpugrad.cpu.scratch import Array, take


def steps(
    n: int, k: int, m: int, dtype: np.dtype[Any], otherwise: Callable[..., None]
) -> Callable[..., None]:
    """Give what computes dx, dw and db, all of them new and by rows, from dy, y, no z, x and w.

    `otherwise` computes them where this is not for such a layer, or not for its memory's order.
    """
    if dtype not in (FLOAT32, FLOAT64):
        return otherwise
    whole = own_threads.same_bits(n, k, m, dtype)
    small = is_small(n, k, m)
    on_one_thread = small and is_unthreaded(n, k, m, UNCUT if whole else NARROW)
    at_once = small or (own_threads.fits(n, k, m, dtype) and n * m <= BLOCK)
    uncut = all(one <= UNCUT or one % STRETCH == 0 for one in (n, m))
    if not on_one_thread and not (whole and at_once and uncut):
        return otherwise
    shape, one, row = (n, m), unit(dtype), ones(n, dtype) if n <= FEW_ROWS else None
    subtract, times = np.subtract, np.multiply

    @np.errstate(all="ignore")
    def compute(
        dy: Array, y: Array, z: None, x: Array, w: Array, dx: Array, dw: Array, db: Array
    ) -> None:
        if not (x.flags.c_contiguous and w.flags.c_contiguous) or not (
            on_one_thread or has_its_threads(dtype, small=small)
        ):
            otherwise(dy, y, z, x, w, dx, dw, db)
            return
        with take() as scratch:
            dz = scratch.array("dz", shape, dtype)
            subtract(one, y, dz)
            times(dz, y, dz)
            times(dz, dy, dz)
            dz.dot(w.T, dx)
            x.T.dot(dz, dw)
            if row is None:
                sum_columns(dz, db, add=False)
            else:
                row.dot(dz, db)

    return compute


def has_its_threads(dtype: np.dtype[Any], *, small: bool) -> bool:
    """Say whether the BLAS has the threads that it may use; if not small, several."""
    threads = blas.libraries().threads()
    return (small or threads > 1) and own_threads.allowed(threads, dtype) == threads
