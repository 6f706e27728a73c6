"""Cycles of a main loop by pipe, blocks on a multiprocessor, and the time of a layer's backward."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from bench.model import devices, sass
from bench.model.devices import PARTITIONS, Device
from gpugrad.gpu import compiler
from gpugrad.planning import configurations, tiles
from gpugrad.planning.choice import passes
from gpugrad.planning.configurations import GemmConfiguration, Wgmma
from gpugrad.planning.gpu_costs import GPU_LAUNCH
from gpugrad.planning.problem import ITEMSIZE, Gemm, Problem, products
from gpugrad.planning.tiles import gemm
from tests.kernels import compile_gate, machine_code
from tests.kernels.instantiations import ELEMENTS

N, K, M = 8192, 4096, 4096
EDGE_CYCLES = 2000  # of a block outside its main loop: a first access of memory, and the results
THREADS = configurations.Configuration.THREADS  # that multiply; wgmma has a producer beside them
WARPS = THREADS // sass.WARP
ON_PLANES = ("mma", "wgmma")
# Of an opcode, where it is not one for each 128 bytes. Half of gemm_ffma.cuh's loads give one
# address to pairs of lanes, which halves them; in float64 the others meet in their banks.
WAVEFRONTS: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("ffma", "float32"): {"LDS.128": 3},
    ("ffma", "float64"): {"LDS.128": 5},
}


@dataclass(frozen=True)
class Precision:
    """A way to compute products, and what it is to reach.

    Attributes
    ----------
    name : str
    dtype : str
    algorithm : {"mma", "wgmma", "dmma", "ffma"}
    planes : int
        With "mma" and "wgmma", of each operand.
    peer : str
        The BLAS product that it is compared with.
    target : float or None
        How many times faster than the peer a layer's backward is to be on an H200.
    """

    name: str
    dtype: str
    algorithm: str
    planes: int
    peer: str
    target: float | None

    @property
    def pairs(self) -> int:
        """Products of planes."""
        return max(1, self.planes * (self.planes + 1) // 2)

    @property
    def term_bytes(self) -> int:
        """Of one element of an operand, with all its planes."""
        return 2 * self.planes if self.planes else ITEMSIZE[self.dtype]

    @property
    def multiply(self) -> str:
        """The instruction that multiplies."""
        ordinary = "DFMA" if self.dtype == "float64" else "FFMA"
        tensor = {"mma": "HMMA", "wgmma": "HGMMA", "dmma": "DMMA"}
        return tensor.get(self.algorithm, ordinary)

    def on(self, device: Device) -> "Precision":
        """Return the way that the device has: wgmma; multiply-adds without float64 tensor cores."""
        if self.algorithm == "mma" and device.rates.warpgroup_16:
            return dataclasses.replace(self, algorithm="wgmma")
        if self.algorithm == "dmma" and not device.rates.tensor_64:
            return dataclasses.replace(self, algorithm="ffma")
        return self

    def rate(self, device: Device) -> float:
        """Return the multiply-adds a clock and multiprocessor of the pipe that multiplies."""
        rates = device.rates
        return {
            "HMMA": rates.tensor_16,
            "HGMMA": rates.warpgroup_16,
            "DMMA": rates.tensor_64,
            "FFMA": rates.float32,
            "DFMA": rates.float64,
        }[self.multiply]

    def peak_rate(self, device: Device) -> float:
        """Return the same of the device's peak, which not every instruction reaches."""
        return device.dense_16 if self.algorithm in ON_PLANES else self.rate(device)

    def clock_hz(self, device: Device) -> float:
        """Return the clock that the peak is stated for."""
        return device.tensor_16_clock_hz if self.algorithm in ON_PLANES else device.clock_hz


PRECISIONS = (
    Precision("float32 highest", "float32", "mma", 3, "float32", 2.2),
    Precision("float32 high", "float32", "mma", 2, "float32", 3.7),
    Precision("float32 medium", "float32", "mma", 1, "TF32", 1.7),
    Precision("bfloat16", "bfloat16", "mma", 1, "bfloat16", 1.05),
    Precision("float64", "float64", "dmma", 0, "float64", 1.0),
    Precision("float32 ieee", "float32", "ffma", 0, "float32", None),
)


@dataclass(frozen=True)
class Span:
    """A prediction: at best all pipes overlap, at worst as little as `step_cycles` says."""

    best: float
    worst: float


# ---- a main loop


@dataclass(frozen=True)
class Kernel:
    """A product's kernel as it was compiled.

    Attributes
    ----------
    registers : int
        Of a thread.
    shared_bytes : int
        Of a block.
    step : sass.Step
    """

    registers: int
    shared_bytes: int
    step: sass.Step


def instantiation(precision: Precision, product: str, tile: int) -> tuple[str, tuple[str, ...]]:
    """Name the file and the macros of a product's kernel.

    Rows of all matrices are contiguous: of dx = dz wᵀ both operands lie along the contraction, of
    dw = xᵀ dz both across it.
    """
    macros = [ELEMENTS[precision.dtype]]
    if precision.algorithm != "ffma" and product == "dw":
        macros += ["LEFT_MN_MAJOR", "RIGHT_MN_MAJOR"]
    stem = f"matmul_backward_{precision.algorithm}"
    return stem, (*macros, *configuration(precision, tile).macros)


def configuration(precision: Precision, tile: int) -> GemmConfiguration:
    """Return the configuration of a product's kernel with so many columns in a tile."""
    found = configurations.tiles(precision.algorithm, precision.dtype, precision.planes)
    return next(one for one in found if tile == one.BLOCK_N)


@functools.cache
def kernel(precision: Precision, product: str, tile: int, arch: str) -> Kernel:
    """Compile a product's kernel and read its main loop."""
    stem, macros = instantiation(precision, product, tile)
    arch = compiler.architecture(stem, arch.removeprefix("sm_"))
    cubin, log = compiler.compile_kernel(stem, macros, arch)
    usage = compile_gate.read_log(log)[stem]
    one = configuration(precision, tile)
    step = sass.step(
        sass.listing(machine_code.kernels(cubin)[stem], arch),
        precision.multiply,
        warps=WARPS,
        tile=tile,
        term_bytes=precision.term_bytes,
        pairs=precision.pairs,
        tile_rows=one.BLOCK_M,
        bulk_terms=one.BLOCK_K if isinstance(one, Wgmma) else 0,
        cluster=one.cluster,
    )
    return Kernel(usage["registers"], usage["shared_bytes"] + one.shared_bytes, step)


def resident_blocks(kernel: Kernel, device: Device) -> int:
    """Count the blocks that a multiprocessor holds at once.

    Those of wgmma have more threads than are counted, and shared memory for no other beside them.
    """
    registers = math.ceil(kernel.registers / devices.REGISTER_UNIT) * devices.REGISTER_UNIT
    return min(
        devices.REGISTERS // (THREADS * registers),
        device.shared_bytes // (kernel.shared_bytes + devices.RESERVED_BYTES),
        device.warps // WARPS,
    )


def step_by_pipe(step: sass.Step, precision: Precision, device: Device) -> dict[str, float]:
    """Count the cycles that a block keeps each pipe of its multiprocessor busy in a step.

    Each partition of the multiprocessor has its own pipes; shared memory and the way to the L2
    cache serve all of them.
    """
    rates = device.rates
    per_clock = {  # threads, of all partitions
        "float32": rates.float32,
        "float64": rates.float64,
        "integer": devices.INTEGER_LANES,
        "special": devices.SPECIAL_LANES,
    }
    found = {pipe: step.instructions(pipe) * THREADS / lanes for pipe, lanes in per_clock.items()}
    multiplied = step.multiply_adds(precision.multiply) * WARPS
    found["tensor"] = multiplied / precision.rate(device) if step.instructions("tensor") else 0.0
    found["shared"] = wavefronts(step, precision)
    found["issue"] = step.instructions() * WARPS / PARTITIONS
    bandwidth = device.l2_bandwidth / device.multiprocessors / precision.clock_hz(device)
    found["L2"] = step.copied_bytes * WARPS / bandwidth
    return found


def wavefronts(step: sass.Step, precision: Precision) -> float:
    """Count the wavefronts of shared memory that a block takes in a step."""
    of_opcode = WAVEFRONTS.get((precision.algorithm, precision.dtype), {})
    return step.wavefronts(of_opcode) * WARPS


def step_cycles(by_pipe: Mapping[str, float], blocks: int, beside: tuple[str, ...] = ()) -> Span:
    """Predict the cycles of a step, for each of the blocks that a multiprocessor holds.

    At best they are those of the busiest pipe. At worst, a warp waits for each of its pipes before
    it goes on to the next, and only the other warps of its partition work meanwhile: of what the
    other pipes do, one part in as many as there are warps remains uncovered. No warp waits for the
    pipes that work `beside` them: wgmma and TMA use shared memory by themselves.
    """
    pipes = [cycles for pipe, cycles in by_pipe.items() if pipe not in ("issue", "L2", *beside)]
    uncovered = (sum(pipes) - max(pipes)) / (blocks * WARPS / PARTITIONS)
    return Span(max(by_pipe.values()), max(by_pipe.values()) + uncovered)


@dataclass(frozen=True)
class MainLoop:
    """What is predicted of a kernel's main loop on a device.

    Attributes
    ----------
    kernel : Kernel
    blocks : int
        That a multiprocessor holds at once.
    by_pipe : mapping
        Cycles of each pipe in a step, for one block.
    cycles : Span
        Of a step, for one block.
    share : Span
        Of the device's peak for such products.
    """

    kernel: Kernel
    blocks: int
    by_pipe: Mapping[str, float]
    cycles: Span
    share: Span

    @property
    def binding(self) -> str:
        """The busiest pipe."""
        return max(self.by_pipe, key=lambda pipe: self.by_pipe[pipe])


def main_loop(precision: Precision, product: str, tile: int, device: Device) -> MainLoop:
    """Predict the main loop of a product's kernel."""
    compiled = kernel(precision, product, tile, device.arch)
    blocks = resident_blocks(compiled, device)
    by_pipe = step_by_pipe(compiled.step, precision, device)
    cycles = step_cycles(by_pipe, blocks, ("shared",) if precision.algorithm == "wgmma" else ())
    multiplied = compiled.step.multiply_adds(precision.multiply) * WARPS
    at_peak = multiplied / precision.peak_rate(device)
    share = Span(at_peak / cycles.best, at_peak / cycles.worst)
    return MainLoop(compiled, blocks, by_pipe, cycles, share)


# ---- a whole layer


def layer(dtype: str) -> Problem:
    """Return the layer that the targets are about."""
    return Problem("dense_sigmoid_backward", N, K, M, dtype, ("x", "w", "b"), 2)


def plan_of(precision: Precision, product: str) -> Gemm:
    """Return tiles and splits of one of the layer's products."""
    shapes = {name: rest for name, *rest in products(layer(precision.dtype))}
    rows, columns, contraction, split = shapes[product]
    return gemm(
        rows,
        columns,
        contraction,
        precision.dtype,
        split=bool(split),
        algorithm=precision.algorithm,
        planes=precision.planes,
    )


def product_seconds(precision: Precision, product: str, device: Device) -> Span:
    """Predict the time of one of the layer's products."""
    plan = plan_of(precision, product)
    loop = main_loop(precision, product, plan.configuration.BLOCK_N, device)
    steps = math.ceil(plan.split_length / loop.kernel.step.terms)
    resident = tiles.resident(plan, device.multiprocessors)
    blocks = math.ceil(plan.blocks * plan.splits / resident)  # of the busiest
    memory = memory_bytes(plan, precision, device, loop.blocks) / device.copy_bandwidth

    def seconds(cycles: float) -> float:
        busy = blocks * (steps * cycles + EDGE_CYCLES / loop.blocks)
        return GPU_LAUNCH + max(busy / precision.clock_hz(device), memory)

    return Span(seconds(loop.cycles.best), seconds(loop.cycles.worst))


def memory_bytes(plan: Gemm, precision: Precision, device: Device, resident: int) -> float:
    """Predict what a product moves between memory and the L2 cache.

    The blocks that run at the same time lie in a group of rows of tiles, side by side, and each
    part of an operand comes once for all of them.
    """
    together = min(plan.blocks, device.multiprocessors * resident)
    one = plan.configuration
    rows = min(one.TILE_GROUP, math.ceil(plan.rows / one.BLOCK_M), together)
    strips = rows * one.BLOCK_M + together / rows * one.BLOCK_N
    read = plan.blocks / together * strips * plan.contraction * precision.term_bytes
    return read + ITEMSIZE[precision.dtype] * plan.rows * plan.columns


def pass_seconds(precision: Precision, device: Device) -> float:
    """Predict the time of the passes beside the products, by their bytes."""
    traffic = passes(layer(precision.dtype), precision.algorithm, precision.planes)
    return sum(GPU_LAUNCH + one / device.copy_bandwidth for one in traffic)


def layer_seconds(precision: Precision, device: Device) -> Span:
    """Predict the time of the layer's whole backward pass."""
    parts = [product_seconds(precision, name, device) for name in ("dx", "dw")]
    passes = pass_seconds(precision, device)
    return Span(passes + sum(one.best for one in parts), passes + sum(one.worst for one in parts))


def peer_seconds(precision: Precision, device: Device) -> float:
    """Predict the least time of the same by a BLAS, whose products read dz from memory.

    One pass reads dy and y and writes dz; it may have summed db.
    """
    problem = layer(precision.dtype)
    moved = (problem.reads + 1) * ITEMSIZE[precision.dtype] * N * M
    products = problem.flops / (1e12 * device.public[precision.peer])
    return products + GPU_LAUNCH + moved / device.copy_bandwidth


def flops_limit(rate: float, precision: Precision, device: Device) -> float:
    """Return the flops per second of products at an uninterrupted rate of multiply-adds."""
    a_clock = 2 * rate * device.multiprocessors / precision.pairs
    return a_clock * precision.clock_hz(device)
