"""What work on the CPU takes: rates, as measured or round figures, and predictions from them.

The model is linear in its rates. A call is counted in a few kinds of work, each takes so long a
unit on all cores together, and `gpugrad tune` solves the same equations for the rates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import Problem, products

# Of work, with what is counted: flops of products; elements that products read and write, once
# each; elements that are summed over rows, that dz and that σ are computed of; bytes of operands
# and results that no cache holds, and that come as new pages from the system.
KINDS = ("product", "moved", "sum", "gradient", "sigmoid", "memory")
CACHED = 1 << 25  # bytes: about a last-level cache, and from where on the allocator keeps none
# Seconds that a thread works before another one helps: work is cut into pieces that are worth
# waking a thread for. 2.5e-4 and 2.7e-4 fitted best to 240 calls in float32 and float64, of 40 µs
# to 80 ms, on two cores.
GRAIN = 2.5e-4
SCALING = 0.8  # of a further core to the first, where nothing is measured


@dataclass(frozen=True)
class CpuRates:
    """What `gpugrad tune` measures of the CPU.

    Attributes
    ----------
    workers : int
        Threads that the rates are those of.
    speedup : float
        How many times faster they are together than one of them.
    call : mapping
        Seconds of the smallest call, by operation.
    unit : mapping
        Seconds a unit of each of `KINDS` on all workers, by dtype.
    """

    workers: int
    speedup: float
    call: Mapping[str, float]
    unit: Mapping[str, Mapping[str, float]]


# On one core, where nothing is measured: a BLAS at 60 GFLOP/s in float32, and σ at 1.5 ns.
DEFAULT_UNITS = {
    "float64": (3.3e-11, 4e-10, 4e-10, 1.2e-9, 3e-9, 1e-10),
    "float32": (1.7e-11, 2e-10, 2e-10, 6e-10, 1.5e-9, 1e-10),
    "float16": (1.7e-11, 6e-10, 6e-10, 2e-9, 3e-9, 1e-10),
    "bfloat16": (1.7e-11, 3e-10, 3e-10, 1e-9, 2e-9, 1e-10),
}
DEFAULT_CALL = 3e-5


def default_rates(workers: int) -> CpuRates:
    """Return round figures for a machine that has not been measured."""
    speedup = 1 + SCALING * (workers - 1)
    unit = {
        dtype: {kind: seconds / speedup for kind, seconds in zip(KINDS, units, strict=True)}
        for dtype, units in DEFAULT_UNITS.items()
    }
    return CpuRates(workers, speedup, dict.fromkeys(OPERATIONS, DEFAULT_CALL), unit)


def work(problem: Problem, *, from_logits: bool = False) -> dict[str, float]:
    """Count the work of a call, by kind; dz from logits takes as long as σ."""
    elements = float(problem.n * problem.m)
    found = dict.fromkeys(KINDS, 0.0)
    found["product"] = problem.flops
    found["moved"] = float(
        sum(
            rows * contraction + contraction * columns + rows * columns
            for _, rows, columns, contraction, _ in products(problem)
        )
    )
    if "db" in problem.results:
        found["sum"] = elements
    if problem.computes_dz:
        found["sigmoid" if from_logits else "gradient"] = elements
    if "y" in problem.results:
        found["sigmoid"] = elements
    found["memory"] = float(max(0, problem.bytes_in + problem.bytes_out - CACHED))
    return found


def cpu_seconds(
    problem: Problem, rates: CpuRates, workers: int, *, from_logits: bool = False
) -> float:
    """Predict the time of a call on the CPU.

    Parameters
    ----------
    problem : Problem
    rates : CpuRates
    workers : int
        Threads that it may use.
    from_logits : bool
        Whether the sigmoid's gradient is computed from z.
    """
    unit, counts = rates.unit[problem.dtype], work(problem, from_logits=from_logits)
    together = sum(count * unit[kind] for kind, count in counts.items())
    alone = rates.speedup * together
    further = min(1.0, (workers - 1) / max(1, rates.workers - 1))
    shared = alone / (1 + (rates.speedup - 1) * further)
    return rates.call[problem.op] + min(alone, max(GRAIN, shared))
