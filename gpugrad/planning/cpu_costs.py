"""The cost model of the CPU: rates, measured or default, and predicted times.

The model is linear in its rates: the time of a call is a sum over kinds of work, each counted in
units of its own. `gpugrad tune` fits the rates to measured times by the same equations.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import Problem, products

# Kinds of work and their units: "product", flops; "moved", elements of the matrices of products;
# "sum", elements summed over rows; "gradient", elements of dz; "sigmoid", elements of σ; "memory",
# bytes of operands and results beyond the caches and the allocator's free memory.
KINDS = ("product", "moved", "sum", "gradient", "sigmoid", "memory")
CACHED = 1 << 25  # bytes: a typical last-level cache, and the allocator's threshold for mmap
# Seconds of work that are worth waking a thread. 2.5e-4 and 2.7e-4 fitted 240 calls of 40 µs to
# 80 ms in float32 and float64 best, on two cores.
GRAIN = 2.5e-4
SCALING = 0.8  # speed of a further core relative to the first; a default


@dataclass(frozen=True)
class CpuRates:
    """The rates of the CPU, as `gpugrad tune` measures them.

    Attributes
    ----------
    workers : int
        Number of threads.
    speedup : float
        Speed of all threads together relative to one.
    call : mapping
        Seconds of the smallest call, by operation.
    unit : mapping
        Seconds per unit of each of `KINDS` on all workers, by dtype.
    """

    workers: int
    speedup: float
    call: Mapping[str, float]
    unit: Mapping[str, Mapping[str, float]]


# Defaults for one core: a BLAS at 60 GFLOP/s in float32, σ at 1.5 ns per element.
DEFAULT_UNITS = {
    "float64": (3.3e-11, 4e-10, 4e-10, 1.2e-9, 3e-9, 1e-10),
    "float32": (1.7e-11, 2e-10, 2e-10, 6e-10, 1.5e-9, 1e-10),
    "float16": (1.7e-11, 6e-10, 6e-10, 2e-9, 3e-9, 1e-10),
    "bfloat16": (1.7e-11, 3e-10, 3e-10, 1e-9, 2e-9, 1e-10),
}
DEFAULT_CALL = 3e-5


def default_rates(workers: int) -> CpuRates:
    """Return default rates for a machine without a profile."""
    speedup = 1 + SCALING * (workers - 1)
    unit = {
        dtype: {kind: seconds / speedup for kind, seconds in zip(KINDS, units, strict=True)}
        for dtype, units in DEFAULT_UNITS.items()
    }
    return CpuRates(workers, speedup, dict.fromkeys(OPERATIONS, DEFAULT_CALL), unit)


def work(problem: Problem, *, from_logits: bool = False) -> dict[str, float]:
    """Count the work of a call by kind; dz from logits counts as σ."""
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
        Threads available to the call.
    from_logits : bool
        Whether dz is computed from z.
    """
    unit, counts = rates.unit[problem.dtype], work(problem, from_logits=from_logits)
    together = sum(count * unit[kind] for kind, count in counts.items())
    alone = rates.speedup * together
    further = min(1.0, (workers - 1) / max(1, rates.workers - 1))
    shared = alone / (1 + (rates.speedup - 1) * further)
    return rates.call[problem.op] + min(alone, max(GRAIN, shared))
