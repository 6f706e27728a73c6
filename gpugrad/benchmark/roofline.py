"""What this machine can do at best, as measured: copies of memory and products of matrices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from gpugrad import host
from gpugrad.benchmark import environment
from gpugrad.benchmark.cases import Case
from gpugrad.benchmark.measure import OURS
from gpugrad.benchmark.peers import Peer
from gpugrad.benchmark.samples import Summary, summarize
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave, rotating
from gpugrad.testing import operations

SIDE = 1024  # of the matrices that are multiplied
COPIED = 1 << 28  # bytes, more than caches hold
BUDGET = TimeBudget(rounds=9, seconds=0.6)


def measure(
    dtype: str, places: Sequence[str], peers: Sequence[Peer], found: list[dict[str, Any]]
) -> None:
    """Measure the roofline of each device for a dtype: the fastest product, and copies.

    Appended to `found`: dicts of device, dtype, flops_per_second, by, and bytes_per_second (read
    and written).
    """
    case = Case("matmul_backward", dtype, "highest", (SIDE, SIDE, SIDE))
    operands = operations.consistent_arrays(case.op, case.size, operations.dtype_of(dtype), seed=0)
    for place in places:
        near: Mapping[str, Any] = operands
        if place == "gpu":
            import cupy

            near = {name: cupy.asarray(one) for name, one in operands.items()}
        call = functools.partial(operations.call, case.op, near, device=place)
        candidates = [Candidate(OURS[place], call, place)]
        for peer in peers:
            with suppress(Exception):  # whatever a framework raises: it sets no roof
                candidates += _able(peer, case, near, place)
        interleave(candidates, BUDGET)
        best = min(candidates, key=lambda one: one.summary.low)
        found.append(
            {
                "device": place,
                "dtype": dtype,
                "flops_per_second": case.problem.flops / best.summary.low,
                "by": best.name,
                "bytes_per_second": bandwidth(place).high,
            }
        )


def _able(peer: Peer, case: Case, near: Mapping[str, Any], place: str) -> list[Candidate]:
    """Return a peer's implementations that work."""
    found = peer.implementations(case.op, near, place)
    for one in found:
        with one.within():
            one.call()
    return [Candidate(one.name, one.call, one.device, one.within, warm=True) for one in found]


def bandwidth(device: str, size: int | None = None) -> Summary:
    """Measure the bytes read plus bytes written a second of copies."""
    free = environment.free_memory()
    size = size or min(COPIED, COPIED if free is None else free // 4)
    calls = _copies_on_gpu(size) if device == "gpu" else [_copy_on_cpu(size)]
    copy = Candidate("copy", rotating(calls), device)
    interleave([copy], BUDGET)
    return summarize([2 * size / seconds for seconds in copy.samples])


def _copy_on_cpu(size: int) -> Callable[[], object]:
    """Copy with as many threads as there are cores: one does not reach the memory's bandwidth."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    count = host.cores()
    parts = list(zip(np.array_split(target, count), np.array_split(source, count), strict=True))
    pool = ThreadPoolExecutor(count)

    def copy() -> object:
        return list(pool.map(lambda pair: np.copyto(*pair), parts))

    return copy


def _copies_on_gpu(size: int) -> list[Callable[[], object]]:
    """Copy between two pairs of arrays in turn, so that no cache holds them."""
    import cupy

    pairs = [(cupy.ones(size, "u1"), cupy.empty(size, "u1")) for _ in range(2)]
    return [
        functools.partial(target.data.copy_from_async, source.data, size)
        for source, target in pairs
    ]
