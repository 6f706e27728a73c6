"""What work on a GPU takes: its rates, by its properties or as measured, and predictions from them.

Everything here is arithmetic on a `Problem`, the steps that it comes down to, and rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpugrad.planning import tiles
from gpugrad.planning.configurations import GemmConfiguration, Wgmma
from gpugrad.planning.problem import (
    ACCUMULATOR_ITEMSIZE,
    ITEMSIZE,
    FusedLayer,
    Gemm,
    Problem,
    Step,
)

GPU_SHARE = 0.6  # of the peak rates that properties promise, where nothing is measured
GPU_LAUNCH = 3e-6  # seconds from one kernel to the next, where nothing is measured
GPU_CALL = 4e-5  # seconds of a call beside its kernels, likewise
HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Rates:
    """Multiply-adds a clock and multiprocessor, as the makers' data sheets have them; and memory.

    Attributes
    ----------
    float32, float64 : float
        In the ordinary units.
    tensor_16 : float
        On tensor cores, of 16-bit operands into float32, by mma.sync; 0 where these kernels need
        what the device has not.
    tensor_64 : float
        On float64 tensor cores; 0 where there are none, or where they are no faster.
    warpgroup_16 : float
        As tensor_16, by wgmma; 0 where there is none.
    shared_kb : int
        Shared memory that one block may ask for, in units of 1024 bytes, by the CUDA programming
        guide.
    """

    float32: float
    float64: float
    tensor_16: float = 0
    tensor_64: float = 0
    shared_kb: int = 64
    warpgroup_16: float = 0


RATES = {
    (7, 5): Rates(64, 2),
    (8, 0): Rates(64, 32, 1024, 64, 163),
    (8, 6): Rates(128, 2, 256, 0, 99),  # of the GeForce models; others of the generation have 512
    (8, 9): Rates(128, 2, 256, 0, 99),
    (9, 0): Rates(128, 64, 1290, 128, 227, 2048),  # mma.sync has about 63 % of what wgmma has
    (10, 0): Rates(128, 64, 1024, 64, 227),
    (10, 3): Rates(128, 2, 1024, 0, 227),
    (12, 0): Rates(128, 2, 256, 0, 99),
}


def rates_of(capability: tuple[int, int]) -> Rates:
    """Return the rates of a compute capability, of the next lower one where it is not known."""
    return RATES[max((one for one in RATES if one <= capability), default=min(RATES))]


@dataclass(frozen=True)
class Copy:
    """What copies between host and device take.

    Attributes
    ----------
    latency : float
        Seconds of the smallest copy.
    bandwidth : float
        Of large ones, bytes a second.
    """

    latency: float
    bandwidth: float

    def seconds(self, size: int, count: int) -> float:
        """Predict so many copies of so many bytes in all."""
        return count * self.latency + size / self.bandwidth


@dataclass(frozen=True)
class GpuRates:
    """What `gpugrad tune` measures of a GPU and of the way to it.

    Attributes
    ----------
    call : float
        Seconds of a call on the GPU's own arrays, until the result is there, beside its kernels.
    launch : float
        Seconds that every kernel takes, however little it does.
    bandwidth : float
        Of passes over arrays in the device's memory, bytes read and written a second.
    to_device, to_host : Copy
        Of NumPy arrays, whose memory is pageable.
    pinned_to_device, pinned_to_host : Copy
        Of page-locked memory, for comparison: no prediction uses them.
    multiply_adds : tuple of (str, float)
        A second, by `kernel_name`. What is not among them is predicted by properties.
    """

    call: float
    launch: float
    bandwidth: float
    to_device: Copy = field(hash=False)  # the rest suffices, and every call needs a hash
    to_host: Copy = field(hash=False)
    pinned_to_device: Copy = field(hash=False)
    pinned_to_host: Copy = field(hash=False)
    multiply_adds: tuple[tuple[str, float], ...] = field(default=(), hash=False)


@dataclass(frozen=True)
class DeviceFacts:
    """What the choice of an algorithm may know about a GPU.

    Attributes
    ----------
    name : str
    compute_capability : tuple of int
        (major, minor).
    sm_count : int
    clock_hz : float
    bandwidth : float
        Of the device's memory, bytes a second, as its properties state it.
    memory : int
        Bytes in all.
    measured : GpuRates, optional
        From the profile of the machine. Without it, rates follow from the properties.
    """

    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    clock_hz: float
    bandwidth: float
    memory: int
    measured: GpuRates | None = None

    @property
    def rates(self) -> GpuRates:
        """The measured rates, or round figures."""
        if self.measured is not None:
            return self.measured
        pageable, pinned = Copy(2e-5, 1.2e10), Copy(1e-5, 2.4e10)
        bandwidth = GPU_SHARE * self.bandwidth
        return GpuRates(GPU_CALL, GPU_LAUNCH, bandwidth, pageable, pageable, pinned, pinned)


def kernel_name(dtype: str, algorithm: str, planes: int, tile: int) -> str:
    """Name a kernel of products whose rate is its own.

    How the width of tiles changes that of wgmma is part of `product_work`.

    Examples
    --------
    >>> kernel_name("float32", "mma", 3, 128), kernel_name("bfloat16", "wgmma", 1, 64)
    ('float32 mma 3 planes, tile 128', '16-bit wgmma')
    """
    kind = "16-bit" if dtype in HALVES else dtype
    of_planes = f" {planes} plane{'s' * (planes > 1)}" if planes and kind == "float32" else ""
    of_tile = "" if algorithm == "wgmma" else f", tile {tile}"
    return f"{kind} {algorithm}{of_planes}{of_tile}"


def multiply_adds(dtype: str, plan: Gemm | FusedLayer, facts: DeviceFacts) -> float:
    """Return the multiply-adds a second of the kernel that computes a product."""
    one = plan.configuration
    width = one.BLOCK_N if isinstance(one, GemmConfiguration) else one.OUTPUTS
    name = kernel_name(dtype, plan.algorithm, plan.planes, width)
    measured = dict(facts.rates.multiply_adds).get(name)
    if measured is not None:
        return measured
    rates = rates_of(facts.compute_capability)
    a_clock = {
        "ffma": rates.float64 if dtype == "float64" else rates.float32,
        "mma": rates.tensor_16,
        "wgmma": rates.warpgroup_16,
        "dmma": rates.tensor_64,
    }[plan.algorithm]
    return GPU_SHARE * a_clock * facts.clock_hz * facts.sm_count


def product_work(plan: Gemm, sm_count: int) -> float:
    """Count a product's multiply-adds as they occupy the device: in whole tiles and waves."""
    waves = math.ceil(plan.blocks * plan.splits / tiles.resident(plan, sm_count))
    tile = float(plan.configuration.BLOCK_M * plan.configuration.BLOCK_N)
    if isinstance(plan.configuration, Wgmma):
        tile *= tiles.slowed(plan, sm_count)
    return float(waves * sm_count * tile * plan.split_length * plan.pairs)


def product_bytes(problem: Problem, name: str, plan: Gemm) -> float:
    """Count the bytes that a product moves: operands, result, and the partial sums of splits."""
    size = ITEMSIZE[problem.dtype]
    element, reads = {
        "ffma": (size, problem.reads),
        "mma": (2 * plan.planes, 1),
        "wgmma": (2 * plan.planes, 1),
        "dmma": (size, 1),
    }[plan.algorithm]
    dz = (plan.columns if name == "dw" else plan.rows) * plan.contraction
    operands = (plan.rows + plan.columns) * plan.contraction + max(0, reads - 1) * dz
    workspace = 2 * ACCUMULATOR_ITEMSIZE[problem.dtype] * plan.workspace_elements
    return float(element * operands + size * plan.rows * plan.columns + workspace)


def fused_work(plan: FusedLayer, sm_count: int) -> float:
    """Count a layer's multiply-adds in one launch as they occupy the device."""
    waves = math.ceil(plan.blocks * plan.splits / sm_count)
    block = 2 * plan.configuration.INPUTS * plan.configuration.OUTPUTS
    return float(waves * sm_count * block * plan.split_length * plan.pairs)


def fused_bytes(problem: Problem, plan: FusedLayer) -> float:
    """Count the bytes that a layer's gradients in one launch move, partial sums included.

    Every block reads dy and y of its rows, although blocks that run together may share them; w
    stays in a cache.
    """
    n, k, m, size = problem.n, problem.k, problem.m, ITEMSIZE[problem.dtype]
    read = plan.blocks * problem.reads * n * m + n * k + k * m
    written = n * k + k * m + m
    workspace = 2 * ACCUMULATOR_ITEMSIZE[problem.dtype] * plan.workspace_elements
    return float(size * (read + written) + workspace)


def kernel_seconds(
    problem: Problem,
    steps: Sequence[tuple[str, Step]],
    passes: Sequence[float],
    facts: DeviceFacts,
) -> float:
    """Predict the time of a call's kernels: each is bounded by its bytes or its multiply-adds.

    Parameters
    ----------
    problem : Problem
    steps : sequence
        Those of its plan.
    passes : sequence of float
        Bytes of each pass beside the products.
    facts : DeviceFacts
    """
    rates = facts.rates
    seconds = sum(rates.launch + traffic / rates.bandwidth for traffic in passes)
    for name, plan in steps:
        if isinstance(plan, Gemm):
            work = product_work(plan, facts.sm_count) / multiply_adds(problem.dtype, plan, facts)
            moved = product_bytes(problem, name, plan) / rates.bandwidth
        elif isinstance(plan, FusedLayer):
            work = fused_work(plan, facts.sm_count) / multiply_adds(problem.dtype, plan, facts)
            moved = fused_bytes(problem, plan) / rates.bandwidth
        else:
            continue
        seconds += rates.launch * (1 + (plan.splits > 1)) + max(work, moved)
    return seconds


def transfer_seconds(problem: Problem, arrays_in: int, arrays_out: int, rates: GpuRates) -> float:
    """Predict the copies of a call whose arrays are on the host."""
    there = rates.to_device.seconds(problem.bytes_in, arrays_in)
    return there + rates.to_host.seconds(problem.bytes_out, arrays_out)
