"""The choice of the algorithm of a call, by its predicted time.

All of it is arithmetic on shapes and device facts, and can be tested without a GPU.

Tiles and splits depend on shapes, dtype and algorithm alone. The algorithm also depends on the
device: on the instructions that it has, and on its rates, which follow from its properties or are
measured by `gpugrad tune`. It does not depend on the number of rows, so that a row's results do
not either. Extents that TMA cannot address are the exception.
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

EXACT_PLANES = 3  # planes of bfloat16 represent every float32 exactly
EXACT_TERMS = 192  # sums of so many terms from planes are as accurate as by FFMA; numerics.md
RECOVERED_TERMS = 128  # the same in the fused kernel on Hopper, which recovers truncated bits
TYPICAL_ROWS = 4096  # rows of a batch that choose the algorithm
MANY_ROWS = 10**6  # a batch so large that weights count little
FUSED_STEPS = 2  # least steps of a split: shorter splits move more partial sums than they save


@dataclass(frozen=True)
class Choice:
    """An algorithm, its planes, the predicted time of its kernels, and the reason for it."""

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
    other_seconds: float | None = None,
) -> Plan:
    """Plan a call on a given device.

    Parameters
    ----------
    problem : Problem
    device : {"cpu", "gpu"}
    precision : {"highest", "high", "medium", "ieee"}
    reason : str
        Why the device was chosen.
    seconds : float or None
        The predicted time on the device.
    facts : DeviceFacts, optional
        Facts of the GPU. Without them products use FFMA.
    other_seconds : float, optional
        The predicted time on the other device.
    """
    op = problem.op
    if device == "cpu":
        return Plan(op, "cpu", "numpy", seconds, other_seconds, reason)
    choice = choose_algorithm(problem, precision, facts)
    algorithm, steps = choice.algorithm, steps_of(problem, choice.algorithm, choice.planes, facts)
    is_fused = "layer" in dict(steps)
    if products(problem) or is_fused:
        reason = f"{reason}; {choice.reason}"
        but = " except dw, whose sums have few terms," * ("dw" in dict(steps))
        reason += f", all gradients{but} by the fused kernel, which moves fewer bytes" * is_fused
    else:
        algorithm = "column-sum" if steps else "elementwise"
    return Plan(op, "gpu", algorithm, other_seconds, seconds, reason, steps)


def choose_algorithm(problem: Problem, precision: str, facts: DeviceFacts | None) -> Choice:
    """Choose the algorithm of a call's products, for any number of rows; FFMA for short sums."""
    choice = fastest(row_independent(problem), precision, facts)
    wanted = products(problem)
    is_fused = "layer" in dict(steps_of(problem, choice.algorithm, choice.planes, facts))
    if wanted and not is_fused and all(_short(one[3], choice.planes) for one in wanted):
        reason = f"{_describe('ffma', 0, problem.dtype)}, because sums have few terms"
        return Choice("ffma", 0, choice.seconds, reason)
    return choice


def _short(contraction: int, planes: int) -> bool:
    """Return whether a sum has too few terms for planes to be as accurate as FFMA."""
    return planes == EXACT_PLANES and contraction < EXACT_TERMS


def row_independent(problem: Problem) -> Problem:
    """Return the problem with a typical batch: rows must not depend on the others in the batch."""
    return replace(problem, n=TYPICAL_ROWS, wrt=OPERATIONS[problem.op].wrt)


def candidates(
    problem: Problem, precision: str, capability: tuple[int, int]
) -> tuple[tuple[str, int], ...]:
    """List the algorithms of a call's products that are accurate enough on a device.

    Parameters
    ----------
    problem : Problem
    precision : {"highest", "high", "medium", "ieee"}
    capability : tuple of int
        (major, minor).

    Returns
    -------
    tuple
        Pairs (algorithm, planes). The first is ("ffma", 0), which every device supports. Tensor
        cores truncate when they add. Sums of at least EXACT_TERMS terms from three planes are still
        as accurate as by FFMA; in the fused kernel on Hopper, sums of at least RECOVERED_TERMS. In
        separate kernels, `steps_of` computes shorter sums by FFMA.
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
    """Choose the algorithm of a call's products with the shortest predicted time."""
    if facts is None:
        return Choice("ffma", 0, 0.0, _describe("ffma", 0, problem.dtype))
    times = {
        one: kernel_seconds(problem, *one, facts)
        for one in candidates(problem, precision, facts.compute_capability)
    }
    best = min(times, key=lambda one: times[one])
    reason = _describe(*best, problem.dtype)
    if best[0] != "ffma":
        reason += f", predicted {times[best]:.2g} s for {problem.n} rows"
        reason += f" against {times['ffma', 0]:.2g} s by FFMA"
    return Choice(*best, times[best], reason)


def _describe(algorithm: str, planes: int, dtype: str) -> str:
    if algorithm == "dmma":
        return "products on float64 tensor cores"
    if algorithm == "ffma":
        return "products by IEEE FFMA"
    if dtype != "float32":
        return f"products on {dtype} tensor cores"
    kind = "bfloat16" if planes == 3 else "scaled float16"
    return f"products on tensor cores from {planes} {kind} plane{'s' * (planes > 1)}"


def fused_layer(problem: Problem, algorithm: str) -> FusedLayer | None:
    """Plan the fused kernel of a layer's gradients; None if no configuration has room for it."""
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
def fused_path(problem: Problem, algorithm: str, facts: DeviceFacts) -> FusedLayer | None:
    """Plan the fused kernel of a layer's gradients if it moves fewer bytes than separate kernels.

    The decision depends on shape, dtype and the shared memory of the device. If fused and separate
    kernels give dx different bits, it does not depend on the number of rows. They give dw and db
    different bits, so that it does not depend on `wrt`.
    """
    whole = replace(problem, wrt=OPERATIONS[problem.op].wrt)
    layer = planned = fused_layer(whole, "mma" if algorithm == "wgmma" else algorithm)
    limit = rates_of(facts.compute_capability).shared_kb << 10
    if layer is None or layer.configuration.shared_bytes > limit:
        return None
    if algorithm != layer.algorithm or layer.planes > 1:
        whole = replace(whole, n=MANY_ROWS)
        layer = fused_layer(whole, layer.algorithm)
        assert layer is not None
    separate_bytes = sum(passes(whole, algorithm, layer.planes))
    for name, step in separate_steps(whole, algorithm, layer.planes):
        if isinstance(step, Gemm):
            separate_bytes += product_bytes(whole, name, step)
    return planned if fused_bytes(whole, layer) < separate_bytes else None


def steps_of(
    problem: Problem, algorithm: str, planes: int, facts: DeviceFacts | None = None
) -> tuple[tuple[str, Step], ...]:
    """Plan the steps of a call: the fused kernel, or a step per product and column sum.

    A dw from planes has a step of its own besides the fused kernel if its sums are too short for
    planes to be as accurate as FFMA.
    """
    layer = fused_path(problem, algorithm, facts) if facts is not None and problem.wrt else None
    if layer is None or layer.planes != planes:
        return separate_steps(problem, algorithm, planes)
    if planes < EXACT_PLANES or problem.n >= RECOVERED_TERMS or "w" not in problem.wrt:
        return (("layer", layer),)
    return (("layer", layer), ("dw", dict(separate_steps(problem, "ffma", 0))["dw"]))


def separate_steps(
    problem: Problem, algorithm: str, planes: int
) -> tuple[tuple[str, Gemm | ColumnSum], ...]:
    """Plan a step per product and column sum."""
    steps: list[tuple[str, Gemm | ColumnSum]] = []
    # On tensor cores the pass that computes dz always sums its columns.
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
    """Predict the time of a call on a GPU, with transfers if its arrays are in host memory."""
    choice = choose_algorithm(problem, precision, facts)
    seconds = facts.rates.call + kernel_seconds(problem, choice.algorithm, choice.planes, facts)
    if from_host:
        arrays_in, arrays_out = len(OPERATIONS[problem.op].operands), len(problem.results)
        seconds += transfer_seconds(problem, arrays_in, arrays_out, facts.rates)
    return seconds


def kernel_seconds(problem: Problem, algorithm: str, planes: int, facts: DeviceFacts) -> float:
    """Predict the time of a call's kernels with a given algorithm."""
    steps = steps_of(problem, algorithm, planes, facts)
    extra = [] if "layer" in dict(steps) else passes(problem, algorithm, planes)
    return gpu_costs.kernel_seconds(problem, steps, extra, facts)


def passes(problem: Problem, algorithm: str, planes: int) -> list[float]:
    """List the bytes of each pass besides products: dz, column sums, planes, exponents."""
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
