"""Predicted times of skinny layers whose gradients come from one launch, beside PyTorch's least.

A step of a block is one turn of the kernel's outer loop: its rows come from memory, dx and dw are
multiplied in inner loops, and dx is written. The machine code tells what a turn executes.
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass

from bench.model import predict, sass
from bench.model.devices import Device
from bench.model.predict import THREADS, WARPS, Precision, Span
from gpugrad.gpu import compiler
from gpugrad.planning.choice import fused_layer
from gpugrad.planning.gpu_costs import GPU_LAUNCH, fused_bytes
from gpugrad.planning.problem import ITEMSIZE, FusedLayer, Problem
from tests.kernels import compile_gate, machine_code
from tests.kernels.instantiations import ELEMENTS

N = 10**6
SIDES = (64, 128)  # of k and m
TARGET = 2.0  # times PyTorch compiled, on an H200
PRECISIONS = (
    Precision("float32, planes", "float32", "mma", 3, "float32", TARGET),
    Precision("float32, multiply-adds", "float32", "ffma", 0, "float32", TARGET),
    Precision("bfloat16", "bfloat16", "mma", 1, "bfloat16", TARGET),
)
MULTIPLY_ADDS = {"FFMA": sass.WARP, "HMMA": 2048}  # of an instruction of a warp
WAVEFRONTS = {"LDS.128": 2.0}  # of multiply-adds: lanes of half a warp share what they read


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a layer on a device.

    Attributes
    ----------
    plan : FusedLayer
    kernel : predict.Kernel
        Its step is a turn of the outer loop.
    blocks : int
        That a multiprocessor holds at once.
    by_pipe : dict
        Cycles of each pipe in a step, for one block.
    memory : float
        Seconds that the bytes take.
    time : Span
    peer : float
        The least that PyTorch, compiled, takes.
    """

    plan: FusedLayer
    kernel: predict.Kernel
    blocks: int
    by_pipe: dict[str, float]
    memory: float
    time: Span
    peer: float

    @property
    def ratio(self) -> Span:
        """How many times as long PyTorch takes."""
        return Span(self.peer / self.time.best, self.peer / self.time.worst)

    @property
    def binding(self) -> str:
        """What takes longest: memory or a pipe."""
        busiest = max(self.by_pipe, key=lambda pipe: self.by_pipe[pipe])
        return "memory" if self.time.best <= self.memory * 1.001 + 2 * GPU_LAUNCH else busiest


def layer(dtype: str, side: int) -> Problem:
    """Return the layer of a target."""
    return Problem("dense_sigmoid_backward", N, side, side, dtype, ("x", "w", "b"), 2)


def plan_of(precision: Precision, side: int) -> FusedLayer:
    """Plan a layer in one launch."""
    plan = fused_layer(layer(precision.dtype, side), precision.algorithm)
    assert plan is not None
    return plan


def fits(precision: Precision, side: int, device: Device) -> bool:
    """Return whether a block may have the shared memory."""
    return plan_of(precision, side).configuration.shared_bytes <= device.rates.shared_kb << 10


@functools.cache
def kernel(precision: Precision, plan: FusedLayer, arch: str) -> predict.Kernel:
    """Compile the kernel, and count what a warp executes in a step of full rows."""
    stem = f"dense_sigmoid_backward_fused_{precision.algorithm}"
    one = plan.configuration
    cubin, log = compiler.compile_kernel(stem, (ELEMENTS[precision.dtype], *one.macros), arch)
    code = [
        # Nothing here returns: a call without an increment is a jump out of a loop.
        line._replace(opcode="BRA") if line.opcode == "CALL.REL.NOINC" else line
        for line in sass.listing(machine_code.kernels(cubin)[stem], arch)
    ]
    of_dx = one.ROWS * one.INPUTS
    needed = of_dx * one.OUTPUTS // (WARPS * MULTIPLY_ADDS[precision.multiply]) * plan.pairs
    counts = turn(code, precision.multiply, needed, of_dx // (4 * THREADS))
    return predict.Kernel(
        compile_gate.read_log(log)[stem]["registers"],
        one.shared_bytes,
        sass.Step(counts, one.ROWS),
    )


def turn(code: list[sass.Instruction], multiply: str, needed: int, quads: int) -> Counter[str]:
    """Count what a warp executes in one turn of the outer loop.

    Parameters
    ----------
    code : list of Instruction
    multiply : str
        Name of the instruction that multiplies.
    needed : int
        Of these, for dx of a step, and as many for dw.
    quads : int
        Of dx, that a thread writes where it does so in a loop.
    """

    def holds(one: sass.Loop) -> int:
        return sum(code[number].name == multiply for number in one.body)

    found = sass.loops(code)
    main = max(found, key=lambda one: (holds(one), len(one.body)))
    inside = [one for one in found if one.body < main.body and holds(one)]
    inside = [one for one in inside if not any(other.body < one.body for other in inside)]
    inside.sort(key=lambda one: one.head)
    way = sass.way_round(code, main, None, multiply)
    repeated = frozenset().union(*(one.body for one in inside))
    counts: Counter[str] = Counter()
    once = [number for number in way if number not in repeated]
    left = 2 * needed - sum(code[number].name == multiply for number in once)
    for one in inside:
        own = [number for number in way if number in one.body]
        turns, rest = divmod(needed, holds(one))
        if rest:
            raise ValueError(f"an inner loop has {holds(one)} of {needed} {multiply}")
        left -= turns * holds(one)
        counts.update({op: turns * n for op, n in Counter(code[i].opcode for i in own).items()})
    if left:
        raise ValueError(f"a turn lacks {left} of {2 * needed} {multiply}")
    stores = [one for one in found if one.body < main.body and one not in inside]
    for number in once:
        in_loop = any(number in one.body for one in stores)
        counts[code[number].opcode] += quads if in_loop else 1
    return counts


def predicted(precision: Precision, side: int, device: Device) -> Prediction:
    """Predict a layer on a device."""
    problem = layer(precision.dtype, side)
    plan = plan_of(precision, side)
    compiled = kernel(precision, plan, device.arch)
    blocks = predict.resident_blocks(compiled, device)
    step = compiled.step
    by_pipe = predict.step_by_pipe(step, precision, device)
    if precision.algorithm == "ffma":
        by_pipe["shared"] = step.wavefronts(WAVEFRONTS) * WARPS
    by_pipe["L2"] = 0.0  # whose bytes are those of the memory here
    cycles = predict.step_cycles(by_pipe, blocks)
    steps = math.ceil(plan.split_length / plan.configuration.ROWS)
    of_busiest = math.ceil(plan.blocks * plan.splits / device.multiprocessors)
    clock = precision.clock_hz(device)

    def arithmetic(cycles: float) -> float:
        return of_busiest * (steps * cycles + predict.EDGE_CYCLES / blocks) / clock

    memory = fused_bytes(problem, plan) / device.copy_bandwidth
    best, worst = arithmetic(cycles.best), arithmetic(cycles.worst)
    time = Span(
        2 * GPU_LAUNCH + max(best, memory),
        2 * GPU_LAUNCH + max(worst, memory) + min(worst, memory) / blocks,
    )
    return Prediction(plan, compiled, blocks, by_pipe, memory, time, peer(precision, side, device))


def peer(precision: Precision, side: int, device: Device) -> float:
    """Return the least that PyTorch takes: 5 n m elements of passes, and two products by a BLAS."""
    size, elements = ITEMSIZE[precision.dtype], N * side
    moved = size * 2 * elements / device.copy_bandwidth  # of a product
    multiplied = 2 * elements * side / (device.public[precision.peer] * 1e12)
    passes = size * 5 * elements / device.copy_bandwidth
    return 3 * GPU_LAUNCH + passes + 2 * max(moved, multiplied)
