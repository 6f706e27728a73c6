"""Bank conflicts of the products and of the fused backward kernels, found in the emulator."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from gpugrad.gpu.arguments import defines, flags, integers
from gpugrad.planning.choice import fused_layer
from gpugrad.planning.configurations import FUSED, tiles
from gpugrad.planning.instantiations import ELEMENTS
from gpugrad.planning.problem import Problem
from tests.emulator import Requests, uninitialised
from tests.support import emulator_runtime
from tests.support.cases import dtype_of


class Precision(NamedTuple):
    """The algorithm of a product, and the planes of its operands."""

    name: str
    dtype: str
    algorithm: str
    planes: int = 0


THREE, TWO, ONE = (
    Precision(f"float32 {name}", "float32", "mma", planes)
    for name, planes in (("highest", 3), ("high", 2), ("medium", 1))
)
BFLOAT16 = Precision("bfloat16", "bfloat16", "mma", 1)
FLOAT64 = Precision("float64", "float64", "dmma")
IEEE, IEEE64 = (Precision(f"{dtype} ieee", dtype, "ffma") for dtype in ("float32", "float64"))
TENSOR_CORES = [
    (precision, product, tile)
    for precision in (THREE, TWO, ONE, BFLOAT16, FLOAT64)
    for product in ("dx", "dw")
    for tile in (128, 64)
]
RUNTIME = emulator_runtime.EmulatorRuntime()


def requests(
    precision: Precision, product: str, tile: int, contraction: int, *, aligned: bool = True
) -> list[Requests]:
    """Run one block of a product's kernel, and tell what it asked of shared memory."""
    found = tiles(precision.algorithm, precision.dtype, precision.planes)
    one = next(one for one in found if tile == one.BLOCK_N)
    across = product == "dw"  # of dx = dz wᵀ both operands are K-major, of dw = xᵀ dz neither
    macros = [ELEMENTS[precision.dtype], *one.macros]
    if precision.algorithm != "ffma" and across:
        macros += ["LEFT_MN_MAJOR", "RIGHT_MN_MAJOR"]
    stem = f"matmul_backward_{precision.algorithm}"
    shape = (contraction, tile) if across else (tile, contraction)
    strides = (1, tile) if across else (contraction, 1)
    operand: tuple[Any, ...]
    if precision.algorithm == "mma":
        planes = np.zeros((precision.planes, *shape), np.uint16)
        pitches = integers(shape[1], shape[0] * shape[1])
        operand = (planes, *pitches, np.zeros(tile, np.int32))
    else:
        walk = flags(aligned) if precision.algorithm == "dmma" else flags(not across, aligned)
        operand = (np.zeros(shape, precision.dtype), *integers(*strides), *walk)
    out = uninitialised((tile, tile), np.uint16 if precision is BFLOAT16 else precision.dtype)
    result = (out, *integers(tile, 1), None, *flags(True, False))
    extents = integers(tile, tile, contraction, contraction)
    function = emulator_runtime.module(RUNTIME.kernels / f"{stem}.cu", tuple(macros)).get_function(
        stem
    )
    arguments = (*operand, *operand, *result, *extents)
    options = {"shared_mem": one.shared_bytes, "count_wavefronts": True}
    function((1, 1), (one.THREADS,), arguments, **options)
    return function.shared_requests


def conflicts(found: list[Requests]) -> dict[str, float]:
    """Name what takes more wavefronts than it need, and how many times as many."""
    return {
        f"{one.kind} {one.place}": one.wavefronts / one.ideal
        for one in found
        if one.wavefronts > one.ideal
    }


def requests_of_a_layer(dtype: str, algorithm: str, tile: int) -> list[Requests]:
    """Run one block of the kernel for a whole layer with as many inputs and outputs as it takes."""
    rows = 64
    plan = fused_layer(Problem("dense_sigmoid_backward", rows, 1, tile, dtype), algorithm)
    assert plan is not None
    one, k, m, shape = plan.configuration, plan.configuration.INPUTS, tile, (rows, tile)
    element = np.float32 if dtype == "float32" else np.uint16
    inputs = [np.zeros(one, element) for one in (shape, shape, (rows, k), (k, m))]
    stem = f"dense_sigmoid_backward_fused_{algorithm}"
    macros = (*defines(np.dtype(dtype_of(dtype))), *one.macros)
    arguments: list[Any] = []
    for matrix in inputs:
        arguments += [matrix, *integers(matrix.shape[1], 1), *flags(True)]
    for shape in ((rows, k), (k, m)):
        arguments += [uninitialised(shape, element), *integers(shape[1], 1), *flags(True)]
    arguments += [None, uninitialised((m,), element), *integers(1), None, *flags(0, 0, 0)]
    arguments += integers(rows, k, m, rows)
    function = emulator_runtime.module(RUNTIME.kernels / f"{stem}.cu", macros).get_function(stem)
    options = {"shared_mem": one.shared_bytes, "count_wavefronts": True}
    function((1, 1), (one.THREADS,), tuple(arguments), **options)
    return function.shared_requests


@pytest.mark.parametrize(
    ("dtype", "algorithm", "tile"),
    [(*key, one.OUTPUTS) for key, sizes in FUSED.items() for one in sizes],
)
def test_layers_fused_are_free_of_bank_conflicts(dtype: str, algorithm: str, tile: int) -> None:
    """But for the sums of threads over eight columns, which are stored once a block."""
    found = requests_of_a_layer(dtype, algorithm, tile)
    left = conflicts(found)
    assert len(left) == (dtype != "float32")
    assert sum(one.requests for one in found if f"{one.kind} {one.place}" in left) <= 16
    assert {one.kind for one in found} >= {"load", "store"}


def name(value: Any) -> str:
    return value.name if isinstance(value, Precision) else str(value)


@pytest.mark.parametrize(("precision", "product", "tile"), TENSOR_CORES, ids=name)
def test_products_on_tensor_cores_are_free_of_bank_conflicts(
    precision: Precision, product: str, tile: int
) -> None:
    """Fragments, asynchronous copies, and the sums on their way through the tile."""
    found = requests(precision, product, tile, 128)
    assert conflicts(found) == {}
    kinds = {one.kind for one in found}
    assert kinds == ({"copy", "load"} if precision is FLOAT64 else kinds | {"copy", "matrix load"})
    if precision is FLOAT64:
        assert conflicts(requests(precision, product, tile, 128, aligned=False)) == {}


@pytest.mark.parametrize(
    ("precision", "product", "kinds"),
    [
        (IEEE, "dx", {"store": 2}),  # quads are transposed on their way into the tile
        (IEEE, "dw", {}),
        (IEEE64, "dx", {"store": 4, "load": 2}),
        (IEEE64, "dw", {"store": 2, "load": 2}),
    ],
    ids=name,
)
def test_bank_conflicts_of_products_by_multiply_adds(
    precision: Precision, product: str, kinds: dict[str, int]
) -> None:
    found = conflicts(requests(precision, product, 64, 32))
    assert {place.split()[0]: times for place, times in found.items()} == kinds
