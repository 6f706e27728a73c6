"""The CPU's rates, measured: calls of known work, and the rates that explain their times best."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.cpu.threads import number_of_workers
from gpugrad.operations import OPERATIONS
from gpugrad.planning import cpu_costs
from gpugrad.planning.cpu_costs import KINDS, CpuRates
from gpugrad.planning.problem import ITEMSIZE, Problem
from gpugrad.testing import operations

TINY = (8, 8, 8)  # a layer whose calls take as long as the smallest
ALONE = (  # work of one thread, and more than that of the call
    ("sigmoid", (1, 1, 1 << 16)),
    ("sigmoid_backward", (1, 1, 1 << 17)),
    ("dense_sigmoid", (256, 128, 64)),
    ("matmul_backward", (128, 128, 128)),
)
TOGETHER = (  # work of all threads; products of tall layers and of wide ones, arrays of all sizes
    ("sigmoid", (1, 1, 1 << 21)),
    ("sigmoid_backward", (1, 1, 1 << 21)),
    ("bias_backward", (1 << 15, 1, 64)),
    ("bias_backward", (1 << 11, 1, 1 << 11)),
    ("sigmoid_bias_backward", (1 << 14, 1, 128)),
    ("matmul_backward", (1 << 15, 1 << 6, 1 << 6)),
    ("matmul_backward", (1 << 13, 1 << 7, 1 << 4)),
    ("matmul_backward", (1 << 9, 1 << 9, 1 << 9)),
    ("matmul_backward", (1 << 6, 1 << 10, 1 << 10)),
    ("dense_sigmoid_backward", (1 << 14, 1 << 6, 1 << 6)),
    ("dense_sigmoid_backward", (1 << 11, 1 << 8, 1 << 8)),
    ("dense_sigmoid", (1 << 14, 1 << 6, 1 << 6)),
    ("dense_sigmoid", (1 << 9, 1 << 9, 1 << 9)),
)
LARGE = (  # work on matrices of LARGE_BYTES
    ("sigmoid_backward", 1),
    ("bias_backward", 64),
    ("matmul_backward", 64),
)
LARGE_BYTES = 1 << 25
CALLS = 2  # of each case in a round, the best of which counts
MIN_ROUNDS = 3
PRIOR = 0.2  # of the weight of a case, that the default rates' proportions have
MIN_SHARE = 0.1  # of its default proportion: work that seems to take no time is not free


@dataclass
class Case:
    """A call of known work, and the least time that it has taken."""

    problem: Problem
    call: Callable[[], object]
    seconds: float = math.inf

    def measure(self) -> None:
        """Time the call."""
        for _ in range(CALLS):
            start = time.perf_counter()
            self.call()
            self.seconds = min(self.seconds, time.perf_counter() - start)


def case(op: str, size: operations.Size, dtype: str) -> Case:
    """Draw the operands of a call."""
    operation, (n, k, m) = OPERATIONS[op], size
    operands = operations.random_operands(op, size, operations.dtype_of(dtype), seed=0)
    call = functools.partial(operations.call, op, operands, device="cpu")
    if not operation.rows:
        n, k, m = 1, 0, n * m
    elif "w" not in operands:
        k = 0
    return Case(Problem(op, n, k, m, dtype, operation.wrt, operation.reads), call)


class Measured:
    """The cases of one dtype."""

    def __init__(self, dtype: str) -> None:
        large = LARGE_BYTES // ITEMSIZE[dtype]
        self.alone = [case(op, size, dtype) for op, size in ALONE]
        self.together = [case(op, size, dtype) for op, size in TOGETHER]
        self.together += [case(op, (large // width, width, width), dtype) for op, width in LARGE]

    def release(self) -> None:
        """Let go of the operands."""
        for one in (*self.alone, *self.together):
            one.call = _nothing


def _nothing() -> None:
    pass


def measure(seconds: float, dtypes: Sequence[str] = kinds.DTYPES) -> Iterator[str | CpuRates]:
    """Measure the CPU for about so long.

    The calls of a dtype are interleaved, so that what else the machine does for a while hits all of
    them, and the best time of each counts.

    Parameters
    ----------
    seconds : float
    dtypes : sequence of str
        A dtype that is not among them, or for which something is not installed, has the rates of
        the one before it.

    Yields
    ------
    str or CpuRates
        A dtype whenever a round of its calls has been measured; the last is the result.
    """
    tiny = [case(op, TINY, dtypes[0]) for op in OPERATIONS]
    measured: dict[str, Measured] = {}
    for dtype in dtypes:
        start = time.perf_counter()
        try:
            measured[dtype] = Measured(dtype)
        except gpugrad.ArgumentError:  # bfloat16 without ml_dtypes
            continue
        rounds = 0
        while rounds < MIN_ROUNDS or time.perf_counter() - start < seconds / len(dtypes):
            for one in (*tiny, *measured[dtype].alone, *measured[dtype].together):
                one.measure()
            rounds += 1
            yield dtype
        measured[dtype].release()
    yield explain(tiny, measured)


def explain(tiny: Sequence[Case], measured: Mapping[str, Measured]) -> CpuRates:
    """Find the rates with which the model predicts the times of cases best."""
    workers = number_of_workers()
    call = {one.problem.op: one.seconds for one in tiny}
    unit: dict[str, dict[str, float]] = {}
    ratios: list[float] = []
    source = next(iter(measured))
    for dtype in kinds.DTYPES:
        source = dtype if dtype in measured else source
        unit[dtype] = _units(measured[source].together, call, workers)
        ratios += (
            _beyond_the_call(one, call) / _work_seconds(one, unit[dtype])
            for one in measured[source].alone
        )
    speedup = float(np.median(ratios))
    return CpuRates(workers, min(max(1.0, speedup), float(workers)), call, unit)


def _units(cases: Sequence[Case], call: Mapping[str, float], workers: int) -> dict[str, float]:
    """Solve for the seconds of a unit of each kind of work.

    Least squares of relative errors. What the cases do not tell apart, or not through noise, keeps
    the proportion of the default rates: each rate has one more equation that says so.
    """
    defaults = cpu_costs.default_rates(workers).unit[cases[0].problem.dtype]
    units = np.array([defaults[kind] for kind in KINDS])
    counts = np.array([[cpu_costs.work(one.problem)[kind] for kind in KINDS] for one in cases])
    seconds = np.array([_beyond_the_call(one, call) for one in cases])
    units *= np.median(seconds / (counts @ units))
    equations = np.vstack([counts * units / seconds[:, None], PRIOR * np.eye(len(KINDS))])
    ones = np.concatenate([np.ones(len(cases)), np.full(len(KINDS), PRIOR)])
    found = units * np.maximum(MIN_SHARE, np.linalg.lstsq(equations, ones, rcond=None)[0])
    return {kind: float(value) for kind, value in zip(KINDS, found, strict=True)}


def _beyond_the_call(one: Case, call: Mapping[str, float]) -> float:
    """Return the seconds that a case takes beyond the smallest call of its operation."""
    return max(one.seconds - call[one.problem.op], 0.1 * one.seconds)


def _work_seconds(one: Case, units: Mapping[str, float]) -> float:
    return sum(count * units[kind] for kind, count in cpu_costs.work(one.problem).items())
