"""The cost model of a GPU: rates, measured or from its properties, and predicted times."""

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

GPU_SHARE = 0.6  # of the peak rates by its properties; a default, like the following
GPU_LAUNCH = 3e-6  # seconds from one kernel to the next
GPU_CALL = 4e-5  # seconds of a call besides its kernels
HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Rates:
    """Multiply-adds per clock per SM, from data sheets, and shared memory.

    Attributes
    ----------
    float32, float64 : float
        FFMA and DFMA.
    tensor_16 : float
        mma.sync of 16-bit operands with float32 accumulators; 0 if the kernels do not support the
        device.
    tensor_64 : float
        DMMA; 0 if the device has none, or none faster than DFMA.
    shared_kb : int
        Maximum shared memory per block in KiB, from the CUDA programming guide.
    warpgroup_16 : float
        As tensor_16, by wgmma; 0 if there is none.
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
    (8, 6): Rates(128, 2, 256, 0, 99),  # GeForce; other models of the generation have 512
    (8, 9): Rates(128, 2, 256, 0, 99),
    (9, 0): Rates(128, 64, 1290, 128, 227, 2048),  # mma.sync: 63 % of wgmma, as published
    (10, 0): Rates(128, 64, 1024, 64, 227),
    (10, 3): Rates(128, 2, 1024, 0, 227),
    (12, 0): Rates(128, 2, 256, 0, 99),
}


def rates_of(capability: tuple[int, int]) -> Rates:
    """Return the rates of a compute capability; for unknown ones, of the next lower."""
    return RATES[max((one for one in RATES if one <= capability), default=min(RATES))]


@dataclass(frozen=True)
class Copy:
    """The cost of copies between host and device.

    Attributes
    ----------
    latency : float
        Seconds of the smallest copy.
    bandwidth : float
        Bytes per second of large copies.
    """

    latency: float
    bandwidth: float

    def seconds(self, size: int, count: int) -> float:
        """Predict the time of `count` copies of `size` bytes in total."""
        return count * self.latency + size / self.bandwidth


@dataclass(frozen=True)
class GpuRates:
    """The rates of a GPU and of transfers to it, as `gpugrad tune` measures them.

    Attributes
    ----------
    call : float
        Seconds of a call on arrays on the GPU until its results are ready, without its kernels.
    launch : float
        Least seconds of a kernel.
    bandwidth : float
        Bytes per second, read and written, of passes over device memory.
    to_device, to_host : Copy
        Copies of pageable memory, such as NumPy's.
    pinned_to_device, pinned_to_host : Copy
        Copies of page-locked memory, for comparison; predictions do not use them.
    multiply_adds : tuple of (str, float)
        Per second, by `kernel_name`. Other rates follow from the properties.
    """

    call: float
    launch: float
    bandwidth: float
    to_device: Copy = field(hash=False)  # the other fields suffice for the hash of each call
    to_host: Copy = field(hash=False)
    pinned_to_device: Copy = field(hash=False)
    pinned_to_host: Copy = field(hash=False)
    multiply_adds: tuple[tuple[str, float], ...] = field(default=(), hash=False)


@dataclass(frozen=True)
class DeviceFacts:
    """The properties and rates of a GPU that the choice of an algorithm depends on.

    Attributes
    ----------
    name : str
    compute_capability : tuple of int
        (major, minor).
    sm_count : int
    clock_hz : float
    bandwidth : float
        Bytes per second of device memory, by its properties.
    memory : int
        Total bytes.
    measured : GpuRates, optional
        From the profile of the machine. By default rates follow from the properties.
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
        """The measured rates, or default rates."""
        if self.measured is not None:
            return self.measured
        pageable, pinned = Copy(2e-5, 1.2e10), Copy(1e-5, 2.4e10)
        bandwidth = GPU_SHARE * self.bandwidth
        return GpuRates(GPU_CALL, GPU_LAUNCH, bandwidth, pageable, pageable, pinned, pinned)


def kernel_name(dtype: str, algorithm: str, planes: int, tile: int) -> str:
    """Return the name of a product kernel with a rate of its own.

    `product_work` accounts for the tile width of wgmma.

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
    """Return the multiply-adds per second of a product's kernel."""
    one = plan.configuration
    width = one.BLOCK_N if isinstance(one, GemmConfiguration) else one.OUTPUTS
    name = kernel_name(dtype, plan.algorithm, plan.planes, width)
    measured = dict(facts.rates.multiply_adds).get(name)
    if measured is not None:
        return measured
    rates = rates_of(facts.compute_capability)
    per_clock = {
        "ffma": rates.float64 if dtype == "float64" else rates.float32,
        "mma": rates.tensor_16,
        "wgmma": rates.warpgroup_16,
        "dmma": rates.tensor_64,
    }[plan.algorithm]
    return GPU_SHARE * per_clock * facts.clock_hz * facts.sm_count


def product_work(plan: Gemm, sm_count: int) -> float:
    """Count a product's multiply-adds, rounded up to whole tiles and waves."""
    waves = math.ceil(plan.blocks * plan.splits / tiles.resident(plan, sm_count))
    tile = float(plan.configuration.BLOCK_M * plan.configuration.BLOCK_N)
    if isinstance(plan.configuration, Wgmma):
        tile *= tiles.slowdown(plan, sm_count)
    return float(waves * sm_count * tile * plan.split_length * plan.pairs)


def product_bytes(problem: Problem, name: str, plan: Gemm) -> float:
    """Count the bytes that a product moves: operands, result and partial sums."""
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
    """Count the fused kernel's multiply-adds, rounded up to whole blocks and waves."""
    waves = math.ceil(plan.blocks * plan.splits / sm_count)
    block = 2 * plan.configuration.INPUTS * plan.configuration.OUTPUTS
    return float(waves * sm_count * block * plan.split_length * plan.pairs)


def fused_bytes(problem: Problem, plan: FusedLayer) -> float:
    """Count the bytes that the fused kernel moves, with partial sums.

    Every block reads dy and y of its rows: sharing through the L2 cache is not counted. w stays in
    a cache.
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
    """Predict the time of a call's kernels, each bound by its bytes or its multiply-adds.

    Parameters
    ----------
    problem : Problem
    steps : sequence
        The steps of its plan.
    passes : sequence of float
        Bytes of each pass besides the products.
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
    """Predict the transfers of a call on arrays in host memory."""
    there = rates.to_device.seconds(problem.bytes_in, arrays_in)
    return there + rates.to_host.seconds(problem.bytes_out, arrays_out)
