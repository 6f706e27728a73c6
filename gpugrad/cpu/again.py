"""Layers that are computed again and again: what their shapes decide is decided once.

Of a layer that is one block, checks and choices take as long as NumPy takes for the rest. The steps
here are those of layer_backward and dense_sigmoid, in their order and with their bits. Where they
are not for a layer, or not for the arrays of a call, `otherwise` computes it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import numpy as np

from gpugrad.cpu import blas, own_threads
from gpugrad.cpu.arithmetic import (
    FEW_ROWS,
    FLOAT32,
    FLOAT64,
    ones,
    sigmoid_gradient,
    sigmoid_of_negated,
    sum_columns,
    unit,
)
from gpugrad.cpu.cuts import BLOCK
from gpugrad.cpu.own_threads import STRETCH, UNCUT
from gpugrad.cpu.products import NARROW, is_small, is_unthreaded, multiply, product_into
from gpugrad.cpu.scratch import Array, take

Compute = Callable[..., None]


class _Block(NamedTuple):
    """A layer that is one block.

    Attributes
    ----------
    ready : function
        Says, before each call, whether the BLAS has the threads that it may use.
    add : function
        Adds a product to a buffer.
    """

    ready: Callable[[], bool]
    add: Callable[..., None]


def backward(
    n: int, k: int, m: int, dtype: np.dtype[Any], accumulate: Collection[str], otherwise: Compute
) -> Compute:
    """Give what computes those of dx, dw and db that are given, from dy, y or z, x and w."""
    block = _one_block(n, k, m, dtype, contractions=(n, m))
    if block is None:
        return otherwise
    shape, one, row = (n, m), unit(dtype), ones(n, dtype) if n <= FEW_ROWS else None
    ready, add, subtract, times = *block, np.subtract, np.multiply
    add_dx, add_dw, add_db = (name in accumulate for name in ("dx", "dw", "db"))
    write_dx = product_into(n, m, k, dtype.itemsize)
    write_dw = product_into(k, n, m, dtype.itemsize)

    @np.errstate(all="ignore")
    def compute(
        dy: Array,
        y: Array,
        z: Array | None,
        x: Array,
        w: Array,
        dx: Array | None = None,
        dw: Array | None = None,
        db: Array | None = None,
    ) -> None:
        if not (x.flags.c_contiguous and w.flags.c_contiguous) or not ready():
            otherwise(dy, y, z, x, w, dx, dw, db)
            return
        with take() as scratch:
            if z is None:
                dz = scratch.array("dz", shape, dtype)
                subtract(one, y, dz)
                times(dz, y, dz)
                times(dz, dy, dz)
            else:
                dz = sigmoid_gradient(dy, None, z, scratch)
            if add_dx:
                add(dz, w.T, dx, scratch, add=True)
            elif dx is not None:
                write_dx(dz, w.T, dx)
            if add_dw:
                add(x.T, dz, dw, scratch, add=True)
            elif dw is not None:
                write_dw(x.T, dz, dw)
            if row is None or add_db:
                if db is not None:
                    sum_columns(dz, db, add=add_db)
            elif db is not None:
                row.dot(dz, db)

    return compute


def products(
    n: int, k: int, m: int, dtype: np.dtype[Any], accumulate: Collection[str], otherwise: Compute
) -> Compute:
    """Give what computes those of dx and dw that are given, from dy, x and w."""
    block = _one_block(n, k, m, dtype, contractions=(n, m))
    if block is None:
        return otherwise
    ready, add = block
    add_dx, add_dw = (name in accumulate for name in ("dx", "dw"))
    write_dx = product_into(n, m, k, dtype.itemsize)
    write_dw = product_into(k, n, m, dtype.itemsize)
    may_be_square = k in (n, m)

    @np.errstate(all="ignore")
    def compute(
        dy: Array, x: Array, w: Array, dx: Array | None = None, dw: Array | None = None
    ) -> None:
        in_rows = dy.flags.c_contiguous and x.flags.c_contiguous and w.flags.c_contiguous
        square = may_be_square and (
            own_threads.is_square(dy, x.T) or own_threads.is_square(dy, w.T)
        )
        if square or not in_rows or not ready():
            otherwise(dy, x, w, dx, dw)
            return
        with take() as scratch:
            if add_dx:
                add(dy, w.T, dx, scratch, add=True)
            elif dx is not None:
                write_dx(dy, w.T, dx)
            if add_dw:
                add(x.T, dy, dw, scratch, add=True)
            elif dw is not None:
                write_dw(x.T, dy, dw)

    return compute


def forward(n: int, k: int, m: int, dtype: np.dtype[Any], otherwise: Compute) -> Compute:
    """Give what computes y from x, w and b."""
    block = _one_block(n, k, m, dtype, contractions=(k,))
    if block is None:
        return otherwise
    ready, _ = block
    write, negative, subtract = product_into(n, k, m, dtype.itemsize), np.negative, np.subtract

    @np.errstate(all="ignore")
    def compute(x: Array, w: Array, b: Array | None, y: Array) -> None:
        in_rows = x.flags.c_contiguous and w.flags.c_contiguous
        if (n == m and own_threads.is_square(x, w)) or not in_rows or not ready():
            otherwise(x, w, b, y)
            return
        write(x, w, y)
        if b is None:
            negative(y, y)
        else:
            subtract(negative(b), y, y)
        with take() as scratch:
            sigmoid_of_negated(y, y, scratch)

    return compute


def _one_block(
    n: int, k: int, m: int, dtype: np.dtype[Any], contractions: Iterable[int]
) -> _Block | None:
    """Say how a layer is computed as one block, if it is, and its products whole."""
    if not n or dtype not in (FLOAT32, FLOAT64):
        return None
    whole = own_threads.same_bits(n, k, m, dtype)
    small = is_small(n, k, m)
    if small and is_unthreaded(n, k, m, UNCUT if whole else NARROW):
        return _Block(lambda: True, multiply)
    at_once = small or (own_threads.fits(n, k, m, dtype) and n * m <= BLOCK)
    uncut = all(one <= UNCUT or one % STRETCH == 0 for one in contractions)
    if not (whole and at_once and uncut):
        return None
    return _Block(lambda: has_its_threads(dtype, small=small), own_threads.multiply_whole)


def has_its_threads(dtype: np.dtype[Any], *, small: bool) -> bool:
    """Say whether the BLAS has the threads that it may use; if not small, several."""
    threads = blas.libraries().threads()
    return (small or threads > 1) and own_threads.allowed(threads, dtype) == threads
