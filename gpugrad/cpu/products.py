"""Products of matrices, in pieces that one thread of the BLAS computes."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu import blas
from gpugrad.cpu.arithmetic import accumulator, store, wide
from gpugrad.cpu.cuts import BLOCK, cut, cut_into, pieces
from gpugrad.cpu.scratch import Array, Scratch
from gpugrad.cpu.workers import Work

# Gives part of a matrix (rows, columns) in accumulator dtype, as the BLAS takes it.
Part = Callable[[slice, slice, Scratch], Array]

LONG, SHORT = 1024, 256  # sides of the piece of a result that a task computes
MANY = 8  # tasks a product; where there are as many, SHORT is twice that
FEW = 4  # where there are fewer, LONG is halved
CHUNK = 1024  # of a contraction: as much of the operands as is prepared at a time
PART = 2048  # of a contraction, at least, that has a task of its own
PARTS_BYTES = 32 << 20  # of all the parts of a sum
SMALL = 1 << 22  # multiply-adds of a product: 160³, which takes as long as another thread to wake
ZEROED = 1 << 15  # bytes of a result that is filled with zeros in less time than is saved so
UNTHREADED, NARROW = 1 << 18, 96  # multiply-adds and sides that OpenBLAS takes one thread for


def is_small(n: int, k: int, m: int) -> bool:
    """Say whether a layer is computed at once, on the calling thread."""
    return n * k * m <= SMALL and n * max(k, m) <= 2 * BLOCK


def is_unthreaded(n: int, k: int, m: int, widest: int = NARROW) -> bool:
    """Say whether the BLAS computes a layer's products on one thread even if it has more.

    `widest` is the longest side of those that are known to be so.
    """
    tiny = n * k * m <= UNTHREADED and n <= widest and k <= widest and m <= widest
    return tiny and blas.leaves_small_products_alone()


def operand(matrix: Array, name: str, scratch: Scratch) -> Array:
    """Give a matrix as the BLAS takes it: itself, or a copy in the buffer `name`."""
    dtype = accumulator(matrix.dtype)
    if blas.takes(matrix, dtype):
        return matrix
    if matrix.dtype != dtype:
        return wide(matrix, name, scratch)
    copy = scratch.array(name, matrix.shape, dtype)
    np.copyto(copy, matrix)
    return copy


def part_of(matrix: Array, name: str) -> Part:
    """Give the function that gives parts of a matrix, copied to the buffer `name` if need be."""
    return lambda rows, columns, scratch: operand(matrix[rows, columns], name, scratch)


def transposed(part: Part) -> Part:
    """Give the function that gives parts of the transposed matrix."""
    return lambda rows, columns, scratch: part(columns, rows, scratch).T


def chunk(dtype: np.dtype[Any], *, computed: bool) -> int:
    """Give the length of a contraction to take at a time: more where no operand is prepared."""
    return CHUNK if computed or dtype != accumulator(dtype) else 4 * CHUNK


def multiply(a: Array, b: Array, out: Array, scratch: Scratch, *, add: bool) -> None:
    """Write or add the product a b, in accumulator dtype, to a buffer: one rounding."""
    if not add and out.flags.carray and out.dtype == a.dtype:
        product_into(len(a), len(b), out.shape[1], a.itemsize)(a, b, out)
    elif not add and blas.takes(out, a.dtype):
        np.matmul(a, b, out=out)
    else:
        product = scratch.array("product", out.shape, a.dtype)
        store(np.matmul(a, b, out=product), out, add=add)


def product_into(
    rows: int, terms: int, columns: int, itemsize: int
) -> Callable[[Array, Array, Array], object]:
    """Give what writes a product to a buffer that is by rows and of the operands' dtype.

    The method has less to decide than np.matmul, 0.4 to 0.6 µs, and multiplies vectors in a quarter
    of the time. But it fills the result with zeros before the BLAS writes it: results of 64 KiB to
    1 MiB took 1.05 to 1.1 times as long, the products of 16 × 1024 × 256 1.25 times.
    """
    few = rows * columns * itemsize <= ZEROED
    return np.ndarray.dot if few or 1 in (rows, terms, columns) else np.matmul


def multiply_in_tiles(
    work: Work,
    left: Part,
    right: Part,
    contraction: int,
    length: int,
    out: Array,
    shared: Scratch,
    *,
    add: bool,
    computed: str,
) -> None:
    """Add tasks that write or add a product to out, a tile of it each.

    `length` is how much of the contraction they take at a time. `computed` says which operand costs
    something to give, "left" or "right": tiles are long beside the other, for there it is given
    anew for each. Where there are few tiles, a long contraction is cut too.
    """
    dtype = accumulator(out.dtype)
    tiles, parts = _tiles(*out.shape, contraction, dtype.itemsize, computed)
    targets = out[None]
    if len(parts) > 1:
        targets = shared.array(f"parts beside {computed}", (len(parts), *out.shape), dtype)
        work.sum(targets, out, add=add)
        add = False
    for target, terms in zip(targets, parts, strict=True):
        for r, c in tiles:
            work.tasks.append(partial(_tile, left, right, terms, r, c, length, target[r, c], add))


@functools.lru_cache(maxsize=256)
def _tiles(
    rows: int, columns: int, contraction: int, itemsize: int, computed: str
) -> tuple[list[tuple[slice, slice]], list[slice]]:
    """Cut a product's result into tiles, and its contraction into parts."""
    long, short = (columns, rows) if computed == "left" else (rows, columns)
    length, width = LONG, 2 * SHORT
    if pieces(long, length) * pieces(short, width) < MANY:
        width = SHORT
    while length > SHORT and pieces(long, length) * pieces(short, width) < FEW:
        length //= 2
    down, across = (width, length) if computed == "left" else (length, width)
    tiles = [(r, c) for r in cut(rows, down) for c in cut(columns, across)]
    fit = PARTS_BYTES // max(1, rows * columns * itemsize)
    count = max(1, min(MANY // len(tiles), contraction // PART, fit))
    return tiles, cut_into(contraction, count)


def _tile(
    left: Part,
    right: Part,
    terms: slice,
    rows: slice,
    columns: slice,
    length: int,
    out: Array,
    add: bool,
    scratch: Scratch,
) -> None:
    """Sum over a range of the contraction, so much at a time, with one rounding into out."""
    dtype = accumulator(out.dtype)
    direct = not add and blas.takes(out, dtype)
    total = out if direct else scratch.array("total", out.shape, dtype)
    for i, part in enumerate(cut(terms.stop - terms.start, length)):
        part = slice(terms.start + part.start, terms.start + part.stop)
        a, b = left(rows, part, scratch), right(part, columns, scratch)
        multiply(a, b, total, scratch, add=i > 0)
    if not direct:
        store(total, out, add=add)
