"""Products of matrices: whole, in pieces of rows, or in tiles."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu.arithmetic import FLOAT64, accumulator, store, wide
from gpugrad.cpu.cuts import BLOCK, cut, cut_into, pieces
from gpugrad.cpu.scratch import Array, Scratch, take
from gpugrad.cpu.threads import STRETCH, UNCUT
from gpugrad.cpu.workers import Work

# Returns part of a matrix (rows, columns) in accumulator dtype, as the BLAS takes it.
Part = Callable[[slice, slice, Scratch], Array]

# Writes or adds a product a b to a buffer, from a, b, the buffer and perhaps a Scratch.
Product = Callable[..., object]

LONG, SHORT = 1024, 256  # sides of the piece of a result that a task computes
MANY = 8  # tasks a product; where there are as many, SHORT is twice that
FEW = 4  # where there are fewer, LONG is halved
CHUNK = 1024  # of a contraction: as much of the operands as is prepared at a time
PART = 2048  # of a contraction, at least, that has a task of its own
PARTS_BYTES = 32 << 20  # of all the parts of a sum
ZEROED = 1 << 15  # bytes of a result that is filled with zeros in less time than is saved so
STRIP = 64  # rows of a whole product, at least, that a task computes
TASK = 1 << 23  # multiply-adds of such a task, at least: 100 µs


def takes(matrix: Array, dtype: Any) -> bool:
    """Return whether the BLAS reads or writes a matrix where it is, of the dtype to compute in."""
    if matrix.dtype != dtype:
        return False
    flags = matrix.flags
    if flags.c_contiguous or flags.f_contiguous:
        return bool(flags.aligned)
    (down, across), (rows, columns), size = matrix.strides, matrix.shape, matrix.itemsize
    if down % size or across % size or not flags.aligned:
        return False
    return bool(
        (across == size and down >= columns * size) or (down == size and across >= rows * size)
    )


def is_square(a: Array, b: Array) -> bool:
    """Return whether a matrix may meet its own transpose: NumPy computes half of their product."""
    return a.shape == b.shape[::-1] and np.may_share_memory(a, b)


def operand(matrix: Array, name: str, scratch: Scratch) -> Array:
    """Return a matrix as the BLAS takes it: itself, or a copy in the buffer `name`."""
    dtype = accumulator(matrix.dtype)
    if takes(matrix, dtype):
        return matrix
    if matrix.dtype != dtype:
        return wide(matrix, name, scratch)
    copy = scratch.array(name, matrix.shape, dtype)
    np.copyto(copy, matrix)
    return copy


def part_of(matrix: Array, name: str) -> Part:
    """Return what returns parts of a matrix, copied to the buffer `name` if need be."""
    return lambda rows, columns, scratch: operand(matrix[rows, columns], name, scratch)


def transposed(part: Part) -> Part:
    """Return what returns parts of the transposed matrix."""
    return lambda rows, columns, scratch: part(columns, rows, scratch).T


def chunk(dtype: np.dtype[Any], *, computed: bool) -> int:
    """Return the length of a contraction to take at a time: more where no operand is prepared."""
    return CHUNK if computed or dtype != accumulator(dtype) else 4 * CHUNK


def bind(
    product: Product, rows: int, terms: int, columns: int, out: Array, dtype: Any, *, add: bool
) -> Product:
    """Return what computes a kind of product from a and b of such extents into one like `out`."""
    cut = product is multiply_in_pieces
    cut = cut or (product is multiply_whole and terms > UNCUT and terms % STRETCH > 0)
    if not (cut or add) and out.dtype == dtype and out.flags.carray:
        return product_into(rows, terms, columns, out.itemsize)

    def with_buffers(a: Array, b: Array, out: Array) -> None:
        with take() as scratch:
            product(a, b, out, scratch, add=add)

    return with_buffers


def multiply(a: Array, b: Array, out: Array, scratch: Scratch, *, add: bool) -> None:
    """Write or add the product a b, in accumulator dtype, to a buffer: one rounding."""
    if not add and out.flags.carray and out.dtype == a.dtype:
        product_into(len(a), len(b), out.shape[1], a.itemsize)(a, b, out)
    elif not add and takes(out, a.dtype):
        np.matmul(a, b, out=out)
    else:
        product = scratch.array("product", out.shape, a.dtype)
        store(np.matmul(a, b, out=product), out, add=add)


def product_into(
    rows: int, terms: int, columns: int, itemsize: int
) -> Callable[[Array, Array, Array], object]:
    """Return what writes a product to a buffer that is by rows and of the operands' dtype.

    The method has less to decide than np.matmul, 0.4 to 0.6 µs: a tenth of a layer of 16 × 64 × 64.
    It multiplies vectors in a quarter of the time. But it fills the result with zeros before the
    BLAS writes it: results of 64 KiB to 1 MiB took 1.05 to 1.1 times as long, the products of 16 ×
    1024 × 256 1.25 times.
    """
    few = rows * columns * itemsize <= ZEROED
    return np.ndarray.dot if few or 1 in (rows, terms, columns) else np.matmul


# ---- whole products, of the same bits on any number of the BLAS's threads, and in pieces of rows


def multiply_whole(a: Array, b: Array, out: Array, scratch: Scratch, *, add: bool) -> None:
    """Write or add the product a b, in accumulator dtype, to a buffer: one rounding.

    What is beyond the full vectors of a long contraction has a product of its own.
    """
    length = a.shape[1]
    head = length if length <= UNCUT else length - length % STRETCH
    direct = not add and takes(out, a.dtype)
    if a.dtype == FLOAT64:  # a result by columns would be cut at other edges
        direct = direct and out.strides[1] == out.itemsize
    # A buffer is to stay in cache; of what is beyond the head, the product goes through one too.
    rows = len(out) if direct and head == length else _rows_of(4 * BLOCK, out.shape[1])
    for strip in _rows_cut(len(out), rows):
        target, left = out[strip], a[strip]
        total = target if direct else scratch.array("total", target.shape, a.dtype)
        multiply(left[:, :head], b[:head], total, scratch, add=False)
        if head < length:
            multiply(left[:, head:], b[head:], total, scratch, add=True)
        if not direct:
            store(total, target, add=add)


def multiply_in_pieces(a: Array, b: Array, out: Array, _: Scratch, *, add: bool) -> None:
    """Write or add the same product on workers, some rows of it each."""

    def piece(rows: slice, scratch: Scratch) -> None:
        multiply_whole(a[rows], b, out[rows], scratch, add=add)

    work, rows = Work(), _rows_of(TASK // a.shape[1], out.shape[1])
    work.tasks += (partial(piece, one) for one in _rows_cut(len(out), rows))
    work.run()


def _rows_of(size: int, width: int) -> int:
    """Return the rows of a piece of a result, which is to be of so many elements."""
    return max(STRIP, size // max(1, width) // STRIP * STRIP)


def _rows_cut(extent: int, rows: int) -> list[slice]:
    """Cut rows into pieces of so many, and the last of more: a single row has other kernels."""
    firsts = range(0, max(1, extent // rows) * rows, rows)
    return [slice(first, first + rows) for first in firsts[:-1]] + [slice(firsts[-1], extent)]


# ---- products cut into tiles


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
    """Add tasks that write or add a product to out, a tile of it each, with one rounding into out.

    `length` is how much of the contraction they take at a time. `computed` says which operand costs
    something to give, "left" or "right": tiles are long beside the other, for there it is given
    anew for each. Where there are few tiles, a long contraction is cut too.
    """
    (height, width), dtype = out.shape, accumulator(out.dtype)
    tiles, ranges = _tiles(height, width, contraction, dtype.itemsize, computed)
    targets = out[None]
    if len(ranges) > 1:
        targets = shared.array(f"parts beside {computed}", (len(ranges), *out.shape), dtype)
        work.sum(targets, out, add=add)
        add = False

    def tile(target: Array, terms: slice, rows: slice, columns: slice, scratch: Scratch) -> None:
        target = target[rows, columns]
        direct = not add and takes(target, dtype)
        total = target if direct else scratch.array("total", target.shape, dtype)
        for i, part in enumerate(cut(terms.stop - terms.start, length, terms.start)):
            a, b = left(rows, part, scratch), right(part, columns, scratch)
            multiply(a, b, total, scratch, add=i > 0)
        if not direct:
            store(total, target, add=add)

    for target, terms in zip(targets, ranges, strict=True):
        work.tasks += (partial(tile, target, terms, *one) for one in tiles)


def _tiles(
    rows: int, columns: int, contraction: int, itemsize: int, computed: str
) -> tuple[list[tuple[slice, slice]], list[slice]]:
    """Cut a product's result into tiles, and its contraction into ranges."""
    long, short = (columns, rows) if computed == "left" else (rows, columns)
    length, width = LONG, 2 * SHORT
    if pieces(long, length) * pieces(short, width) < MANY:
        width = SHORT
    while length > SHORT and pieces(long, length) * pieces(short, width) < FEW:
        length //= 2
    down, across = (width, length) if computed == "left" else (length, width)
    tiles = [(r, c) for r in cut(rows, down) for c in cut(columns, across)]
    fit = PARTS_BYTES // max(1, rows * columns * itemsize)
    return tiles, cut_into(contraction, max(1, min(MANY // len(tiles), contraction // PART, fit)))
