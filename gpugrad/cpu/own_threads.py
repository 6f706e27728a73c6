"""Products on the BLAS's own threads, where their number changes no bit.

OpenBLAS's threads spin for some time after a product and begin the next one at once; to wake a
worker takes 30 µs. Each of them computes a piece of the result, and by its kernels for AVX-512 an
element has the same bits in any piece: always in float32, and in float64 where the pieces' edges
fall on full vectors. Of other kernels, such as those for AVX2, that is not so. What is left is the
cut of a long contraction, which one thread makes elsewhere than several unless it is of full
vectors; what is beyond them has a product of its own here.

So kernels, dtype and shape say which products these are, and never a number of threads. Pieces of
such a result, a row of tasks, have its bits too.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpugrad import _environment
from gpugrad.cpu import blas
from gpugrad.cpu.arithmetic import FLOAT64, accumulator, store
from gpugrad.cpu.cuts import BLOCK
from gpugrad.cpu.products import multiply, product_into
from gpugrad.cpu.scratch import Array, Scratch
from gpugrad.cpu.workers import Work, number_of_workers

Product = tuple[Array, Array, Array, bool]  # a, b, and a buffer to write or, if so, to add to

KERNELS = frozenset(("SkylakeX", "Cooperlake", "SapphireRapids"))  # of OpenBLAS, for AVX-512
WHOLE, WHOLE_SQUARE = 1 << 20, 1 << 22  # elements of x and of y where products are not cut
SQUARE = 4  # times as many rows as columns, at most
UNCUT = 256  # of a contraction, which no number of threads cuts
STRETCH = 32  # of a longer one, whose multiples all of them cut at the same places
EDGE = 16  # elements of float64 that no piece's edge divides
STRIP = 64  # rows of a result, at least, that a task computes
TASK = 1 << 23  # multiply-adds of a task, at least: 100 µs


def same_bits(n: int, k: int, m: int, dtype: np.dtype[Any]) -> bool:
    """Say whether a layer's products have the same bits on any number of the BLAS's threads.

    Vectors are left out: their products are cut otherwise.
    """
    even = dtype != FLOAT64 or not (k % EDGE or m % EDGE)
    return even and n > 1 and k > 1 and m > 1 and _kernels_agree()


def fits(n: int, k: int, m: int, dtype: np.dtype[Any]) -> bool:
    """Say whether a layer is so small that its products are computed whole.

    Of a larger one, blocks of rows that stay in cache take less time than whole matrices.
    """
    widest = max(k, m)
    if dtype != accumulator(dtype):  # all operands are copied
        return n * widest <= 4 * BLOCK and k * m <= 8 * BLOCK
    return n * widest <= (WHOLE_SQUARE if n <= SQUARE * widest else WHOLE)


def is_square(a: Array, b: Array) -> bool:
    """Say whether a matrix may meet its own transpose, of which NumPy computes half otherwise."""
    return a.shape == b.shape[::-1] and np.may_share_memory(a, b)


def number(dtype: np.dtype[Any]) -> int:
    """Give how many of its threads the BLAS may use for such products: GPUGRAD_NUM_THREADS at most.

    It is 1 where trying has shown that their bits would not be those of one thread after all.
    """
    return allowed(blas.libraries().threads(), dtype)


def run(work: Callable[[], object], dtype: np.dtype[Any]) -> None:
    """Do some work while the BLAS uses so many threads."""
    threads = blas.libraries().threads()
    wanted = allowed(threads, dtype)
    if threads == wanted:
        work()
    else:
        blas.on_threads(wanted, work)


def allowed(threads: int, dtype: np.dtype[Any]) -> int:
    """Give the same if it has so many."""
    if threads > 1 and _environment.raw("GPUGRAD_NUM_THREADS") is not None:
        threads = min(threads, number_of_workers())
    return threads if _agree(threads, dtype) else 1


def multiply_all(products: Sequence[Product], scratch: Scratch) -> None:
    """Compute products of one dtype, on the BLAS's threads if it has several, else on workers."""
    dtype = products[0][0].dtype
    if number(dtype) > 1:

        def in_turn() -> None:
            for a, b, out, add in products:
                multiply_whole(a, b, out, scratch, add=add)

        run(in_turn, dtype)
        return
    work = Work()
    for a, b, out, add in products:
        rows = rows_of(TASK // a.shape[1], out.shape[1])
        for piece in rows_cut(len(out), rows):
            work.tasks.append(partial(_piece, a[piece], b, out[piece], add))
    work.run()


def multiply_at_once(a: Array, b: Array, out: Array, scratch: Scratch, *, add: bool) -> None:
    """Write or add one product."""
    multiply_all([(a, b, out, add)], scratch)


def _piece(a: Array, b: Array, out: Array, add: bool, scratch: Scratch) -> None:
    multiply_whole(a, b, out, scratch, add=add)


def multiply_whole(a: Array, b: Array, out: Array, scratch: Scratch, *, add: bool) -> None:
    """Write or add the product a b, in accumulator dtype, to a buffer: one rounding."""
    length = a.shape[1]
    head = length if length <= UNCUT else length - length % STRETCH
    if head == length and not add and out.flags.carray and out.dtype == a.dtype:
        # Without what is decided below: 1.5 µs.
        product_into(len(a), length, out.shape[1], a.itemsize)(a, b, out)
        return
    direct = not add and blas.takes(out, a.dtype)
    if a.dtype == FLOAT64:  # a result by columns would be cut at other edges
        direct = direct and out.strides[1] == out.itemsize
    # A buffer is to stay in cache; of what is beyond the head, the product goes through one too.
    rows = len(out) if direct and head == length else rows_of(4 * BLOCK, out.shape[1])
    for strip in rows_cut(len(out), rows):
        target, left = out[strip], a[strip]
        total = target if direct else scratch.array("total", target.shape, a.dtype)
        multiply(left[:, :head], b[:head], total, scratch, add=False)
        if head < length:
            multiply(left[:, head:], b[head:], total, scratch, add=True)
        if not direct:
            store(total, target, add=add)


def rows_of(size: int, width: int) -> int:
    """Give the rows of a piece of a result, which is to be of so many elements."""
    return max(STRIP, size // max(1, width) // STRIP * STRIP)


def rows_cut(extent: int, rows: int) -> list[slice]:
    """Cut rows into pieces of so many, and the last of more: a single row has other kernels."""
    firsts = range(0, max(1, extent // rows) * rows, rows)
    return [slice(first, first + rows) for first in firsts[:-1]] + [slice(firsts[-1], extent)]


@functools.cache
def _kernels_agree() -> bool:
    """Say whether the BLAS is an OpenBLAS with such kernels."""
    found = blas.libraries().all
    return bool(found) and all(getattr(one, "architecture", "") in KERNELS for one in found)


@functools.cache
def _agree(threads: int, dtype: np.dtype[Any]) -> bool:
    """Try whether products have the same bits on so many threads, and in pieces, as on one."""
    if threads == 1:
        return True
    found: list[list[Array]] = []
    for number_of_them in (1, threads):
        blas.on_threads(number_of_them, lambda: found.append(_products(dtype)))
    one, several = found
    return all(map(np.array_equal, one, several)) and np.array_equal(one[0], one[1])


def _products(dtype: np.dtype[Any]) -> list[Array]:
    """Give the three products of a layer, the first of them by pieces too."""
    random = np.random.default_rng(0)
    n, k, m = 2 * STRIP + 29, 9 * STRETCH, 7 * EDGE
    dz, x, w = (random.random(shape).astype(dtype) for shape in ((n, m), (n, k), (k, m)))
    return [x @ w, np.concatenate([x[:STRIP] @ w, x[STRIP:] @ w]), dz @ w.T, x.T @ dz]
