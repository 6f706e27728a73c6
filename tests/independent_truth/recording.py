"""Runs the kernels of products and records what they ask of tensor cores and of mbarriers."""

import ctypes
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad.gpu import dmma, plane_products, source
from gpugrad.gpu.launches import Launch, TensorMap
from gpugrad.gpu.plane_operands import Operand
from gpugrad.gpu.planes import Planes
from gpugrad.planning.gpu_costs import DeviceFacts
from tests.emulator import Module, cache
from tests.support import dmma as dmma_plans
from tests.support import plane_products as plane_plans
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.planes import TestProgram

HERE = Path(__file__).resolve().parent
PRODUCT = np.dtype(
    [
        *((name, np.int64) for name in ("block", "thread", "accumulators", "number")),
        ("operands", np.uint64, 12),
    ]
)
EVENT = np.dtype(
    [(name, np.int64) for name in ("block", "thread", "kind", "barrier", "value", "blocks")]
)
KINDS = ("init", "arrive", "expect", "wait", "sync", "load")  # of events
MAX_PRODUCTS, MAX_EVENTS, MAX_BLOCKS, MEMORY = 1 << 16, 1 << 16, 4, 232448
RIGHT = 1 << 15  # the bit that elements of B have and those of A have not


@dataclass(frozen=True)
class Recording:
    """What a launch asked for, and the result."""

    instruction: str  # "wgmma", or what cute_layouts.cpp calls it
    planes: int
    orders: str
    contraction: int
    products: np.ndarray  # PRODUCT, those of a thread in order
    events: np.ndarray  # EVENT, too
    memory: np.ndarray  # bytes of shared memory, of each block, in the end
    start: int  # the address of that memory
    maps: list[tuple[tuple[int, ...], int]]  # box and bytes of swizzle, of A and B
    result: np.ndarray


class RecordingRuntime(EmulatorRuntime):
    """The emulator, with products that are recorded instead of computed."""

    def __init__(
        self, kernels: Path | None = None, arch: int = 900, multiprocessors: int = 132
    ) -> None:
        super().__init__(kernels=kernels)
        self.arch = arch
        self.multiprocessors = multiprocessors
        self.maps: list[tuple[tuple[int, ...], int]] = []

    def launch(self, step: Launch, args: tuple[Any, ...]) -> None:
        self.module = _module(self.kernels, step.stem, step.macros, self.arch)
        for name in ("product_count", "event_count", "number"):
            self._recorded(name, np.int32, 1)[:] = 0
        self.maps += [(one.box, one.swizzle) for one in step.args if isinstance(one, TensorMap)]
        kernel = self.module.get_function(step.function)
        kernel(step.grid, step.block, args, shared_mem=step.shared_bytes)

    def facts(self, device: int | None) -> DeviceFacts:
        return replace(super().facts(device), sm_count=self.multiprocessors)

    def recording(
        self, instruction: str, planes: int, orders: str, contraction: int, result: np.ndarray
    ) -> Recording:
        """Return what the last launch asked for."""
        products, events = (
            int(self._recorded(f"{one}_count", np.int32, 1)[0]) for one in ("product", "event")
        )
        return Recording(
            instruction,
            planes,
            orders,
            contraction,
            self._recorded("products", PRODUCT, MAX_PRODUCTS)[:products].copy(),
            self._recorded("events", EVENT, MAX_EVENTS)[:events].copy(),
            self._recorded("memory", np.uint8, MAX_BLOCKS * MEMORY).reshape(MAX_BLOCKS, -1).copy(),
            int(self._recorded("start", np.uint32, 1)[0]),
            self.maps,
            result,
        )

    def _recorded(self, name: str, dtype: Any, count: int) -> np.ndarray:
        memory = ctypes.c_char * (np.dtype(dtype).itemsize * count)
        return np.frombuffer(memory.in_dll(self.module.library, f"recorded_{name}"), dtype)


@functools.cache
def _module(kernels: Path, stem: str, defines: tuple[str, ...], arch: int) -> Module:
    text = f'#include "recorded_kernel.h"\n#include "{stem}.cu"\n'
    return Module(text, include_dirs=(HERE, kernels), defines=defines, arch=arch)


def of_planes(
    algorithm: str,
    tile: int,
    planes: int,
    orders: str,
    shape: tuple[int, int, int],
    kernels: Path | None = None,
    multiprocessors: int = 132,
) -> Recording:
    """Record a product whose elements have their numbers as bits, if these are less than RIGHT.

    The number of an element of A (plane, row, contraction) counts the last fastest; that of B
    (plane, column, contraction) too, and has the bit RIGHT. `orders` is the major order of A and
    of B: "K" for K-major, "M" for MN-major.
    """
    rows, columns, contraction = shape
    runtime = RecordingRuntime(kernels, multiprocessors=multiprocessors)
    program, operands = TestProgram(runtime), []
    for order, outer, bit in zip(orders, (rows, columns), (0, RIGHT), strict=True):
        numbers = np.arange(planes * outer * contraction) % RIGHT | bit
        matrix = numbers.astype(np.uint16).reshape(planes, outer, contraction)
        stored = np.ascontiguousarray(matrix if order == "K" else matrix.swapaxes(1, 2))
        exponents = None if planes in (1, 3) else program.ref(np.zeros(outer, np.int32))
        array = program.ref(stored.view(np.float16))
        operands.append(Operand(Planes(array, exponents), order == "K"))
    plan = plane_plans.gemm(algorithm, rows, columns, contraction, tile, planes)
    result = np.full((rows, columns), np.nan, np.float32)
    element = np.dtype(np.float16 if planes == 1 else np.float32)
    into = program.ref(result)
    plane_products.product(program.launches, plan, element, *operands, into, False)
    program.run()
    instruction = {"wgmma": "wgmma", "mma": "mma_bf16" if planes == 3 else "mma_f16"}[algorithm]
    return runtime.recording(instruction, planes, orders, contraction, result)


def of_float64(
    tile: int,
    orders: str,
    shape: tuple[int, int, int],
    arch: int = 900,
    kernels: Path | None = None,
) -> Recording:
    """Record a product of float64 matrices whose elements are their numbers, as of one plane."""
    rows, columns, contraction = shape
    runtime = RecordingRuntime(kernels, arch)
    program, operands = TestProgram(runtime), []
    for order, outer, bit in zip(orders, (rows, columns), (0, RIGHT), strict=True):
        numbers = np.arange(outer * contraction) | bit
        matrix = numbers.reshape(outer, contraction).astype(np.float64)
        operands.append(program.ref(np.array(matrix, order="C" if order == "K" else "F")))
    result = np.full((rows, columns), np.nan)
    plan = dmma_plans.gemm(rows, columns, contraction, tile)
    dmma.product(program.launches, plan, *operands, program.ref(result), False)
    program.run()
    return runtime.recording(
        "mma_f64_large" if arch == 900 else "mma_f64", 1, orders, contraction, result
    )


def kernels_with(file: str, old: str, new: str) -> Path:
    """Return a folder of the kernels in which `old`, which stands once in a file, is `new`."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in source.directory().iterdir()}
    assert texts[file].count(old) == 1, f"{old} is not once in {file}"
    texts[file] = texts[file].replace(old, new)

    def build(target: Path) -> None:
        target.mkdir()
        for name, text in texts.items():
            (target / name).write_text(text, encoding="utf-8")

    return cache.built(f"kernels-{cache.key(*texts, *texts.values())}", build)
