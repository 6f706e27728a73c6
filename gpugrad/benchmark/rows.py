"""Time over the number of rows of a layer, on the CPU and on the GPU."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

import gpugrad
from gpugrad.benchmark import environment
from gpugrad.benchmark.cases import Case, host_bytes
from gpugrad.benchmark.measure import OURS
from gpugrad.benchmark.peers import PEERS
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave
from gpugrad.testing import operations

MAX_ROWS = 1 << 20
MAX_SECONDS = 0.15  # of a call on the CPU, as predicted, at the most rows
STEP = 4
BUDGET = TimeBudget(rounds=7, seconds=0.5)
PREDICTED = "GPU from host arrays, predicted"


def counts(case: Case) -> list[int]:
    """Choose numbers of rows: powers, up to what is quick enough and fits."""
    found = [1]
    room = environment.free_memory()
    while found[-1] < MAX_ROWS:
        larger = with_rows(case, found[-1] * STEP)
        too_long = predicted_seconds(larger, "cpu") > MAX_SECONDS
        if too_long or (room is not None and host_bytes(larger, []) > room // 2):
            break
        found.append(larger.size[0])
    return found


def predicted_seconds(case: Case, device: str) -> float:
    """Return what time the library expects of arrays on the host."""
    zero = np.zeros((), operations.dtype_of(case.dtype))
    shapes = operations.shapes(case.op, case.size)
    stand_ins = [np.broadcast_to(zero, shape) for shape in shapes.values()]
    return gpugrad.plan(case.op, *stand_ins, device=device, **case.options).predicted_seconds


def with_rows(case: Case, n: int) -> Case:
    """Return the case with another number of rows."""
    return Case(case.op, case.dtype, case.precision, (n, *case.size[1:]))


def measure(case: Case, n: int, places: Sequence[str], points: list[dict[str, Any]]) -> None:
    """Measure at one number of rows.

    Appended to `points`: dicts of name, n, seconds and quartiles; quartiles are None where the
    seconds are predicted.
    """
    smaller = with_rows(case, n)
    dtype = operations.dtype_of(case.dtype)
    operands = operations.consistent_arrays(case.op, smaller.size, dtype, seed=0)
    given = {name: operands[name] for name in operations.shapes(case.op, smaller.size)}
    candidates = [
        Candidate(one.name, one.call)
        for one in PEERS["numpy"].implementations(case.op, operands, "cpu")
    ]
    for place in places:
        near = given
        if place == "gpu":
            import cupy

            near = {name: cupy.asarray(one) for name, one in given.items()}
        call = functools.partial(operations.call, case.op, near, device=place, **case.options)
        candidates.append(Candidate(OURS[place], call, place))
        if place == "gpu":
            from_host = functools.partial(
                operations.call, case.op, given, device="gpu", **case.options
            )
            candidates.append(Candidate("gpugrad GPU with copies", from_host, "gpu"))
    interleave(candidates, BUDGET)
    for one in candidates:
        summary = one.summary
        quartiles = [summary.low, summary.high]
        points.append(_point(one.name, n, summary.median, quartiles))
    if "gpu" in places:
        points.append(_point(PREDICTED, n, predicted_seconds(smaller, "gpu"), None))


def _point(name: str, n: int, seconds: float, quartiles: list[float] | None) -> dict[str, Any]:
    return {"name": name, "n": n, "seconds": seconds, "quartiles": quartiles}
