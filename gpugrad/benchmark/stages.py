"""Where the time of a layer's backward pass goes: its stages, each called alone."""

import functools
from collections.abc import Mapping
from typing import Any

import gpugrad
from gpugrad.benchmark.cases import Case
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave
from gpugrad.testing import operations

STAGES = ("dz", "db", "dx", "dw")
WHOLE = "whole"
OP = "dense_sigmoid_backward"
BUDGET = TimeBudget(rounds=9, seconds=1.0)


def measure(case: Case, place: str, found: list[dict[str, Any]]) -> None:
    """Measure dz, db, dx and dw of a layer, each by a call of its own, and the whole call.

    Appended to `found`: a dict of the case, the device, and seconds by stage.
    """
    operands = operations.consistent_arrays(OP, case.size, operations.dtype_of(case.dtype), seed=0)
    near: Mapping[str, Any] = operands
    if place == "gpu":
        import cupy

        near = {name: cupy.asarray(one) for name, one in operands.items()}
    options: dict[str, Any] = {"device": place, **case.options}
    dy, y, x, w = (near[name] for name in ("dy", "y", "x", "w"))
    dz = gpugrad.sigmoid_backward(dy, y, device=place)
    product: Any = functools.partial(gpugrad.matmul_backward, dz, x, w, **options)
    calls = {
        "dz": functools.partial(gpugrad.sigmoid_backward, dy, y, device=place),
        "db": functools.partial(gpugrad.bias_backward, dz, device=place),
        "dx": functools.partial(product, wrt=("x",)),
        "dw": functools.partial(product, wrt=("w",)),
        WHOLE: functools.partial(gpugrad.dense_sigmoid_backward, dy, y, x, w, **options),
    }
    candidates = [Candidate(name, call, place) for name, call in calls.items()]
    interleave(candidates, BUDGET)
    n, k, m = case.size
    seconds = {one.name: one.summary.median for one in candidates}
    found.append(
        {
            "dtype": case.dtype,
            "precision": case.precision,
            "preset": case.preset,
            "n": n,
            "k": k,
            "m": m,
            "device": place,
            "seconds": seconds,
        }
    )
