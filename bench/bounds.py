"""What the BLAS and the memory allow a layer's backward pass on this machine's CPU.

Beside gpugrad's time stand those of what no implementation avoids, each alone, timings interleaved:
the two products, of blocks that are in cache and of whole matrices; to read dy, y and x and write
dx; to have the system hand out the pages of a new dx.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

import gpugrad
from gpugrad.benchmark.sizes import PRESETS
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave
from gpugrad.cpu.arithmetic import accumulator
from gpugrad.cpu.cuts import BLOCK, cut, cut_rows, runs
from gpugrad.cpu.scratch import Array, Scratch
from gpugrad.cpu.workers import Task, Work
from gpugrad.testing import operations
from gpugrad.testing.operations import Size

OURS, INTO = "gpugrad", "gpugrad, out="
PRODUCTS = IN_CACHE, WHOLE = "products in cache", "whole products"
MEMORY, PAGES = "memory", "new pages"
PARTS = (OURS, INTO, *PRODUCTS, MEMORY, PAGES)
PAGE, TOUCHED = 4096, 128  # bytes, and pages that a task touches


def measure(
    layers: Sequence[str], dtypes: Sequence[str], budget: TimeBudget
) -> list[dict[str, Any]]:
    """Time `PARTS`: medians and quartiles in seconds, for presets of `gpugrad bench`."""
    found = []
    for dtype in dtypes:
        for name in layers:
            print(f"bounds of {name}, {dtype} ...", file=sys.stderr, flush=True)
            size = PRESETS[name]
            parts = candidates(size, dtype)
            interleave(parts, budget)
            times = {one.name: asdict(one.summary) for one in parts}
            found.append({**dict(zip("nkm", size, strict=True)), "dtype": dtype, "seconds": times})
    return found


def least(one: Mapping[str, Any]) -> float:
    """Return the seconds of the products alone, by the faster way."""
    return min(float(one["seconds"][name]["median"]) for name in PRODUCTS)


def candidates(size: Size, dtype: str) -> list[Candidate]:
    """Make the candidates, over the same operands."""
    kind = operations.dtype_of(dtype)
    given = operations.random_operands("dense_sigmoid_backward", size, kind, seed=0)
    dy, y, x, w = (given[name] for name in ("dy", "y", "x", "w"))
    out = (np.zeros_like(x), np.zeros_like(w), np.zeros_like(w[0]))
    wide = [one.astype(accumulator(kind), copy=False) for one in (dy, x, w)]
    ours = partial(gpugrad.dense_sigmoid_backward, dy, y, x, w, device="cpu")
    calls: tuple[Callable[[], object], ...] = (
        ours,
        partial(ours, out=out),
        products_in_cache(*wide),
        partial(whole_products, *wide, *map(np.zeros_like, wide[1:])),
        partial(traffic, (dy, y, x), out[0]),
        partial(new_pages, x),
    )
    return [Candidate(name, call) for name, call in zip(PARTS, calls, strict=True)]


def products_in_cache(dy: Array, x: Array, w: Array) -> Callable[[], object]:
    """Return dy wᵀ and xᵀ dy in blocks like those of tall layers, on gpugrad's threads.

    Every block has the same few rows of dy and x, which so are in cache.
    """
    (n, k), m = x.shape, w.shape[1]
    blocks = cut_rows(n, max(k, m))

    def multiply(run: list[slice], scratch: Scratch) -> None:
        dw = scratch.array("dw", (k, m), x.dtype)
        for block in run:
            rows = block.stop - block.start
            whole_products(dy[:rows], x[:rows], w, scratch.array("dx", (rows, k), x.dtype), dw)

    return partial(on_threads, [partial(multiply, run) for run in runs(blocks)])


def whole_products(dy: Array, x: Array, w: Array, dx: Array, dw: Array) -> None:
    """Write dy wᵀ and xᵀ dy, on the BLAS's own threads."""
    np.matmul(dy, w.T, out=dx)
    np.matmul(x.T, dy, out=dw)


def traffic(sources: Sequence[Array], target: Array) -> None:
    """Read the sources, block by block, into a buffer that is in cache; fill the target from it."""

    def move(rows: slice, scratch: Scratch) -> None:
        for source in sources:
            block = source[rows]
            np.copyto(scratch.array("block", block.shape, block.dtype), block)
        block = target[rows]
        np.copyto(block, scratch.array("block", block.shape, block.dtype))

    on_threads([partial(move, rows) for rows in cut(len(target), max(1, BLOCK // target.shape[1]))])


def new_pages(like: Array) -> None:
    """Have the system hand out the pages of a new array, by a byte written to each."""
    pages = np.empty_like(like).reshape(-1).view(np.uint8)[::PAGE]

    def touch(part: slice, _: Scratch) -> None:
        pages[part] = 0

    on_threads([partial(touch, part) for part in cut(len(pages), TOUCHED)])


def on_threads(tasks: Sequence[Task]) -> None:
    """Run tasks on the threads that gpugrad uses."""
    work = Work()
    work.tasks += tasks
    work.run()
