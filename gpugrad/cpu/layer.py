"""The gradients of a layer: dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz, from dz as it is computed.

A small layer is one block, computed by the calling thread; of a larger one, dw and dx are a task
each. A tall layer is cut into blocks of rows, whose dz is in cache for db, dx and dw. Any other is
cut into tiles of dx and of dw.

Where results do not depend on the number of BLAS threads, layers of up to some million elements use
them: dz is computed, then each product at once. Elsewhere the workers' threads, which sleep between
calls, take 30 µs to wake, so that plain NumPy expressions can be faster on idle cores.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpugrad.cpu import products, sums, threads
from gpugrad.cpu.arithmetic import FLOAT64, accumulator, store
from gpugrad.cpu.cuts import BLOCK, MAX_RUNS, MIN_ROWS, cut, parts
from gpugrad.cpu.layer_tasks import Gradient, Layer, in_blocks, in_sums, in_tiles
from gpugrad.cpu.products import (
    PARTS_BYTES,
    Product,
    multiply,
    multiply_in_pieces,
    multiply_whole,
    operand,
    takes,
)
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch, take
from gpugrad.cpu.sums import column_sum
from gpugrad.cpu.workers import Work

Extents = tuple[int, int, int]  # n, k, m

SMALL = 1 << 22  # multiply-adds of a product: 160³, which takes as long as another thread to wake
WHOLE, WHOLE_SQUARE = 1 << 20, 1 << 22  # elements of x and of y where products are not cut
SQUARE = 4  # times as many rows as columns, at most
MIDDLE = 1 << 24  # multiply-adds of a product that is not worth more than one task
FEW_RUNS = 4  # of blocks: where no more fit into memory, tiles give more cores their work,
FEW_RUNS_HELD = 16  # and where they can have all of dz, even in the place of more runs
HELD = 1 << 22  # elements of dz that are kept for all tiles; of more, each tile computes its own


def at_once(
    block: Callable[[Product], Compute], extents: Extents, dtype: Any, *, whole: bool, large: bool
) -> Compute | None:
    """Return what computes a layer (n, k, m), of a dtype, by products that are not cut.

    None for a layer that is cut. `block` returns what computes it by a kind of products. `whole`
    tells that there are those of the same bits on any number of the BLAS's threads, `large`
    that they are for layers that are not small, too.
    """
    if is_small(*extents):
        if threads.is_unthreaded(*extents, whole=whole):
            return block(multiply)
        if not whole:
            return partial(threads.on_threads, 1, block(multiply))
        return threads.bind(accumulator(dtype), block(multiply_whole))
    if whole and large and _fits(*extents, dtype):
        return threads.bind(accumulator(dtype), block(multiply_whole), block(multiply_in_pieces))
    return None


def is_small(n: int, k: int, m: int) -> bool:
    """Return whether a layer is computed on the calling thread."""
    return n * k * m <= SMALL and n * max(k, m) <= 2 * BLOCK


def _fits(n: int, k: int, m: int, dtype: np.dtype[Any]) -> bool:
    """Return whether a layer is so small that its products are computed whole.

    Of a larger one, blocks of rows that stay in cache take less time than whole matrices.
    """
    widest = max(k, m)
    if dtype != accumulator(dtype):  # all operands are copied
        return n * widest <= 4 * BLOCK and k * m <= 8 * BLOCK
    return n * widest <= (WHOLE_SQUARE if n <= SQUARE * widest else WHOLE)


def bind(
    gradient: Gradient, inputs: Arrays, outputs: Arrays, accumulate: Names, *, whole: bool = True
) -> Compute:
    """Return what computes dx (n, k), dw (k, m) and db (m,), as far as they are wanted.

    It is called with dy, y, z, x, w, dx, dw and db; None for what is not read or not wanted.
    Where the inputs have no y, dy is dz. `whole` says whether to take products of the same bits on
    any number of threads where there are some.
    """
    x, w, computed = inputs["x"], inputs["w"], "y" in inputs
    (n, k), m, dtype = x.shape, w.shape[1], accumulator(w.dtype)
    if not n or not outputs:
        return partial(_no_terms, accumulate)
    sum_alone = outputs.keys() == {"db"}
    block = partial(_bind_block, gradient, inputs, outputs, accumulate)
    whole = whole and threads.same_bits(n, k, m, dtype)
    compute = at_once(block, (n, k, m), w.dtype, whole=whole, large=not sum_alone)
    if compute is not None:
        return compute
    held, most = computed and n * m <= HELD, MAX_RUNS
    if "dw" in outputs:
        most = min(most, PARTS_BYTES // max(1, w.size * dtype.itemsize))
    add_tasks: Callable[[Work, Layer, Scratch], None]
    if sum_alone:
        add_tasks = in_sums
    elif n * k * m <= MIDDLE and n * max(k, m) <= 4 * BLOCK:
        return block(multiply, in_two_tasks=True)
    elif n >= 4 * MIN_ROWS and most >= (FEW_RUNS_HELD if held else FEW_RUNS):
        add_tasks = partial(in_blocks, most)
    else:
        add_tasks = partial(in_tiles, computed, held)

    def in_tasks(*arrays: Array) -> None:
        work = Work()
        with take() as shared:
            add_tasks(work, Layer(gradient, accumulate, *arrays), shared)
            work.run()

    return in_tasks


def _no_terms(accumulate: Names, *arrays: Array) -> None:
    for name, result in zip(("dw", "db"), arrays[-2:], strict=True):
        if result is not None and name not in accumulate:
            result.fill(0)


def _bind_block(
    gradient: Gradient,
    inputs: Arrays,
    outputs: Arrays,
    accumulate: Names,
    product: Product,
    in_two_tasks: bool = False,
) -> Compute:
    """Return what computes dz, then each product at once.

    dz is left to this thread: beside the BLAS's threads, which spin, a worker takes longer to wake
    than it saves. With them a layer of 1024 × 256 × 256 took 0.98 ms, and 0.86 without.
    """
    x, w, computed = inputs["x"], inputs["w"], "y" in inputs
    (n, k), m, dtype = x.shape, w.shape[1], accumulator(w.dtype)
    copy_x, copy_w, add_db = not takes(x, dtype), not takes(w, dtype), "db" in accumulate
    in_strips = computed and n * m > BLOCK and not is_small(n, k, m) and not in_two_tasks

    def to(name: str, rows: int, terms: int, columns: int) -> Any:
        if name not in outputs:
            return None
        out, add = outputs[name], name in accumulate
        return products.bind(product, rows, terms, columns, out, dtype, add=add)

    to_dx, to_dw = to("dx", n, m, k), to("dw", k, n, m)
    to_db: Any = sums.bind_columns(n, outputs["db"], add=add_db) if "db" in outputs else None

    def write(
        dz: Array, x: Array, w: Array, dx: Array, dw: Array, db: Array, scratch: Scratch
    ) -> None:
        if dx is not None:
            to_dx(dz, (operand(w, "w", scratch) if copy_w else w).T, dx)
        if dw is not None:
            to_dw((operand(x, "x", scratch) if copy_x else x).T, dz, dw)
        if db is not None and not in_strips:
            to_db(dz, db)

    @np.errstate(all="ignore")
    def block(
        dy: Array, y: Array, z: Array, x: Array, w: Array, dx: Array, dw: Array, db: Array
    ) -> None:
        with take() as scratch:
            if in_strips:
                dz = _in_strips(gradient, dy, y, z, db, add_db, scratch)
            else:
                dz = gradient(dy, y, z, scratch)
            if in_two_tasks:
                work = Work()
                for results in ((None, dw, None), (dx, None, db)):
                    if any(one is not None for one in results):
                        work.tasks.append(partial(write, dz, x, w, *results))
                work.run()
            else:
                write(dz, x, w, dx, dw, db, scratch)

    return block


def _in_strips(
    gradient: Gradient, dy: Array, y: Array, z: Array, db: Array, add: bool, scratch: Scratch
) -> Array:
    """Compute all of dz strip by strip, and sum it into db while it is in cache."""
    n, m = dy.shape
    dz, total = scratch.array("whole", (n, m), accumulator(dy.dtype)), np.zeros(m, FLOAT64)
    for rows in cut(n, max(1, BLOCK // m)):
        gradient(*parts(rows, dy, y, z), scratch, dz[rows])
        if db is not None:
            total += column_sum(dz[rows])
    if db is not None:
        store(total, db, add=add)
    return dz
