"""The choice of what a call will do: the algorithm, by the time that it should take.

Everything here is arithmetic on shapes and device facts. Nothing imports CuPy, so that every
decision can be tested on any machine.

Tiles and splits depend on shapes, dtype and algorithm alone. The algorithm also depends on the
device: which ones it has, and which should be the fastest on it for such a layer, by rates that
follow from its properties or that `gpugrad tune` has measured. It does not depend on the number of
rows, so that a row's results do not either, but for those that Hopper's TMA cannot address.
"""

import functools
import math
from dataclasses import dataclass, replace

from gpugrad.operations import OPERATIONS
from gpugrad.planning import gpu_costs
from gpugrad.planning.configurations import FUSED
from gpugrad.planning.gpu_costs import (
    DeviceFacts,
    fused_bytes,
    product_bytes,
    rates_of,
    transfer_seconds,
)
from gpugrad.planning.problem import (
    ITEMSIZE,
    ColumnSum,
    FusedLayer,
    Gemm,
    Plan,
    Problem,
    Step,
    products,
)
from gpugrad.planning.tiles import column_sum, gemm

EXACT_PLANES = 3  # of bfloat16, which hold every float32
EXACT_TERMS = 192  # of a sum from which on they lose no more than multiply-adds; see numerics.md
RECOVERED_TERMS = 128  # the same in one launch on Hopper, where what is cut off is recovered
TYPICAL_ROWS = 4096  # of a batch, for the choice of an algorithm
MANY_ROWS = 10**6  # of one in which what does not grow with it counts little
FUSED_STEPS = 2  # of a split, at least: fewer would leave more partial sums than they save


@dataclass(frozen=True)
class Choice:
    """An algorithm with its planes, its predicted time on the GPU alone, and why it was taken."""

    algorithm: str
    planes: int
    seconds: float
    reason: str


def choose(
    problem: Problem,
    device: str,
    precision: str,
    reason: str,
    seconds: float | None,
    facts: DeviceFacts | None = None,
    *,
    elsewhere: float | None = None,
) -> Plan:
    """Plan a call on a device that has been decided.

    Parameters
    ----------
    problem : Problem
    device : {"cpu", "gpu"}
    precision : {"highest", "high", "medium", "ieee"}
    reason : str
        Why this device.
    seconds : float or None
        The predicted time, if it is wanted.
    facts : DeviceFacts, optional
        Of the GPU. Without them its matrix products are IEEE multiply-adds.
    elsewhere : float, optional
        The predicted time on the other device.
    """
    op = problem.op
    if device == "cpu":
        return Plan(op, "cpu", "numpy", seconds, elsewhere, reason)
    choice = taken(problem, precision, facts)
    algorithm, steps = choice.algorithm, steps_of(problem, choice.algorithm, choice.planes, facts)
    together = "layer" in dict(steps)
    if products(problem) or together:
        reason = f"{reason}; {choice.reason}"
        but = " but dw, whose sums have few terms," * ("dw" in dict(steps))
        reason += f", all gradients{but} from one launch, for it moves the fewest bytes" * together
    else:
        algorithm = "column-sum" if steps else "elementwise"
    return Plan(op, "gpu", algorithm, elsewhere, seconds, reason, steps)


def taken(problem: Problem, precision: str, facts: DeviceFacts | None) -> Choice:
    """Choose how to compute a call's products: as for any number of rows, unless all are short."""
    choice = fastest(of_any_rows(problem), precision, facts)
    wanted = products(problem)
    together = "layer" in dict(steps_of(problem, choice.algorithm, choice.planes, facts))
    if wanted and not together and all(_short(one[3], choice.planes) for one in wanted):
        words = f"{_words('ffma', 0, problem.dtype)}, as sums have few terms"
        return Choice("ffma", 0, choice.seconds, words)
    return choice


def _short(contraction: int, planes: int) -> bool:
    """Return whether so many planes would lose more than multiply-adds, because terms are few."""
    return planes == EXACT_PLANES and contraction < EXACT_TERMS


def of_any_rows(problem: Problem) -> Problem:
    """Return the problem that stands for the layer: its rows' results must not depend on others."""
    return replace(problem, n=TYPICAL_ROWS, wrt=OPERATIONS[problem.op].wrt)


def candidates(
    problem: Problem, precision: str, capability: tuple[int, int]
) -> tuple[tuple[str, int], ...]:
    """List the ways to compute a call's products on a device that are accurate enough.

    Parameters
    ----------
    problem : Problem
    precision : {"highest", "high", "medium", "ieee"}
    capability : tuple of int
        (major, minor).

    Returns
    -------
    tuple
        Of (algorithm, planes). The first is ("ffma", 0), which every device has. Tensor cores cut
        off where they add: with three planes sums of EXACT_TERMS terms or more are as accurate as
        by IEEE multiply-adds nevertheless, in one launch on Hopper those of RECOVERED_TERMS; few
        roundings are hard to beat. Where no launch does it all, `steps_of` has the shorter ones of
        these products computed by multiply-adds.
    """
    rates, found = rates_of(capability), [("ffma", 0)]
    on_planes = "wgmma" if rates.warpgroup_16 else "mma"
    contractions = [one[3] for one in products(problem)]
    if precision == "ieee" or not contractions:
        pass
    elif problem.dtype == "float64":
        found += [("dmma", 0)] * (rates.tensor_64 > 0)
    elif rates.tensor_16 and problem.dtype != "float32":
        found.append((on_planes, 1))
    elif rates.tensor_16:
        least = {"highest": EXACT_PLANES, "high": 2, "medium": 1}[precision]
        recovered = fused_layer(problem, "mma") is not None and (
            precision != "highest"
            or (on_planes == "wgmma" and min(contractions) >= RECOVERED_TERMS)
        )
        most = EXACT_PLANES if min(contractions) >= EXACT_TERMS or recovered else 2
        found += [(on_planes, planes) for planes in range(least, most + 1)]
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def fastest(problem: Problem, precision: str, facts: DeviceFacts | None) -> Choice:
    """Choose how to compute a call's products in the least time on a GPU, as predicted."""
    if facts is None:
        return Choice("ffma", 0, 0.0, _words("ffma", 0, problem.dtype))
    times = {
        one: kernel_seconds(problem, *one, facts)
        for one in candidates(problem, precision, facts.compute_capability)
    }
    best = min(times, key=lambda one: times[one])
    words = _words(*best, problem.dtype)
    if best[0] != "ffma":
        words += f", predicted {times[best]:.2g} s for {problem.n} rows"
        words += f" against {times['ffma', 0]:.2g} s by multiply-adds"
    return Choice(*best, times[best], words)


def _words(algorithm: str, planes: int, dtype: str) -> str:
    if algorithm == "dmma":
        return "products on float64 tensor cores"
    if algorithm == "ffma":
        return "products by IEEE multiply-adds"
    if dtype != "float32":
        return f"products on {dtype} tensor cores"
    kind = "bfloat16" if planes == 3 else "scaled float16"
    return f"products on tensor cores from {planes} {kind} plane{'s' * (planes > 1)}"


def fused_layer(problem: Problem, algorithm: str) -> FusedLayer | None:
    """Plan a layer's gradients in one launch by shape, if a kernel has room for it."""
    if problem.op != "dense_sigmoid_backward":
        return None
    n, k, m = problem.n, problem.k, problem.m
    for one in FUSED.get((problem.dtype, algorithm), ()):
        if m <= one.OUTPUTS:
            blocks = max(1, math.ceil(k / one.INPUTS))
            splits = max(1, min(math.ceil(n / (FUSED_STEPS * one.ROWS)), one.max_blocks // blocks))
            length = max(1, math.ceil(math.ceil(n / splits) / one.ROWS)) * one.ROWS
            return FusedLayer(n, k, m, max(1, math.ceil(n / length)), length, one)
    return None


@functools.lru_cache(maxsize=4096)
def in_one_launch(problem: Problem, algorithm: str, facts: DeviceFacts) -> FusedLayer | None:
    """Plan a layer's gradients in one launch where that moves fewer bytes than several do.

    It depends on the shape and the dtype, and on whether a block may have the shared memory. The
    bits of dx are the same either way where both use the same instructions in the same order; where
    they do not, the number of rows does not count. Those of dw and db are not, and so it does not
    depend on what is wanted.
    """
    every = replace(problem, wrt=OPERATIONS[problem.op].wrt)
    layer = planned = fused_layer(every, "mma" if algorithm == "wgmma" else algorithm)
    limit = rates_of(facts.compute_capability).shared_kb << 10
    if layer is None or layer.configuration.shared_bytes > limit:
        return None
    if algorithm != layer.algorithm or layer.planes > 1:
        every = replace(every, n=MANY_ROWS)
        layer = fused_layer(every, layer.algorithm)
        assert layer is not None
    several = sum(passes(every, algorithm, layer.planes))
    for name, step in separate_steps(every, algorithm, layer.planes):
        if isinstance(step, Gemm):
            several += product_bytes(every, name, step)
    return planned if fused_bytes(every, layer) < several else None


def steps_of(
    problem: Problem, algorithm: str, planes: int, facts: DeviceFacts | None = None
) -> tuple[tuple[str, Step], ...]:
    """Plan each part of the work that has tiles or splits.

    Without facts of a device, each of a layer's gradients has a step of its own. A dw from planes
    has one, too, where it sums so few rows that planes would lose more than multiply-adds.
    """
    layer = in_one_launch(problem, algorithm, facts) if facts is not None and problem.wrt else None
    if layer is None or layer.planes != planes:
        return separate_steps(problem, algorithm, planes)
    if planes < EXACT_PLANES or problem.n >= RECOVERED_TERMS or "w" not in problem.wrt:
        return (("layer", layer),)
    return (("layer", layer), ("dw", dict(separate_steps(problem, "ffma", 0))["dw"]))


def separate_steps(
    problem: Problem, algorithm: str, planes: int
) -> tuple[tuple[str, Gemm | ColumnSum], ...]:
    """Plan each part of the work by itself."""
    steps: list[tuple[str, Gemm | ColumnSum]] = []
    # On tensor cores the pass that computes dz sums its columns, wanted or not.
    with_dz = problem.computes_dz and OPERATIONS[problem.op].products and algorithm != "ffma"
    if "db" in problem.results or with_dz:
        steps.append(("db", column_sum(problem.n, problem.m, problem.dtype)))
    for name, rows, columns, contraction, split in products(problem):
        short = _short(contraction, planes)
        plan = gemm(
            rows,
            columns,
            contraction,
            problem.dtype,
            split=split,
            algorithm="ffma" if short else algorithm,
            planes=0 if short else planes,
        )
        steps.append((name, plan))
    return tuple(steps)


def gpu_seconds(problem: Problem, precision: str, facts: DeviceFacts, *, from_host: bool) -> float:
    """Predict the time of a call on a GPU, with the transfers of arrays that are on the host."""
    choice = taken(problem, precision, facts)
    seconds = facts.rates.call + kernel_seconds(problem, choice.algorithm, choice.planes, facts)
    if from_host:
        arrays_in, arrays_out = len(OPERATIONS[problem.op].operands), len(problem.results)
        seconds += transfer_seconds(problem, arrays_in, arrays_out, facts.rates)
    return seconds


def kernel_seconds(problem: Problem, algorithm: str, planes: int, facts: DeviceFacts) -> float:
    """Predict the time of a call's kernels, with an algorithm for its products."""
    steps = steps_of(problem, algorithm, planes, facts)
    beside = [] if "layer" in dict(steps) else passes(problem, algorithm, planes)
    return gpu_costs.kernel_seconds(problem, steps, beside, facts)


def passes(problem: Problem, algorithm: str, planes: int) -> list[float]:
    """List the bytes of each pass beside the products: dz, its sums, planes and their exponents."""
    n, k, m, size = problem.n, problem.k, problem.m, ITEMSIZE[problem.dtype]
    dy = float(size * problem.reads * n * m)
    if not products(problem):
        return [float(problem.bytes_in + problem.bytes_out)]
    dense = problem.computes_dz
    if algorithm == "ffma":
        return [dy] if dense and "db" in problem.results else []
    if algorithm == "dmma" or problem.dtype != "float32":
        return [dy + size * n * m] if dense else []
    scaled = planes < EXACT_PLANES
    results = {one[0] for one in products(problem) if not _short(one[3], planes)}
    matrices = [(float(size * n * k), n * k, 1)] * bool(results & {"dw", "y"})
    matrices += [(float(size * k * m), k * m, 1)] * bool(results & {"dx", "y"})
    if problem.reads:
        matrices.append((dy, n * m, 2 if scaled and results >= {"dx", "dw"} else 1))
    found: list[float] = []
    for read, elements, versions in matrices:
        found += [read, 0.0] * scaled  # exponents, in two stages
        found.append(read + 2 * planes * versions * elements)
    return found
