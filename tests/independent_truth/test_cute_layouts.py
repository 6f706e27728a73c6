"""Descriptors, swizzled tiles, fragments and accumulators, as the CuTe headers compute them.

What the kernels ask of tensor cores is recorded while they run, and what the emulator makes of it
is computed; both are compared with CuTe's tables, element by element.
"""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpugrad.planning.configurations import MMA, WGMMA, Wgmma
from tests.conftest import needs_compiler
from tests.emulator import Module, uninitialised
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.test_layouts import INSTRUCTIONS, element_numbers
from tests.emulator.test_wgmma_layouts import IMAGE_A, IMAGE_B

from . import cute
from .recording import RIGHT, Recording, kernels_with, of_float64, of_planes
from .tensor_core import LEADING, MAJORS, Tables, expect_right

WIDTHS = {  # of tiles, by the terms of a stage
    of[0].BLOCK_K: [one.BLOCK_N for one in of] for of in (WGMMA[1], WGMMA[2])
}


@pytest.fixture(scope="module")
def tables() -> Tables:
    needs_compiler()
    return cute.layouts()


# ---- the kernels


def by_wgmma(tile: int, planes: int, orders: str, kernels: Any = None) -> Recording:
    """A product of one tile a block, of a cluster, as long as its elements have numbers."""
    one = next(one for one in WGMMA[planes] if tile == one.BLOCK_N)
    rows, columns, depth = 128 * one.CLUSTER_M, tile * one.CLUSTER_N, one.BLOCK_K
    contraction = min(2, RIGHT // (planes * max(rows, columns)) // depth) * depth
    return of_planes("wgmma", tile, planes, orders, (rows, columns, contraction), kernels)


def by_mma(tile: int, planes: int, orders: str, kernels: Any = None) -> Recording:
    one = next(one for one in MMA[planes] if tile == one.BLOCK_N)
    return of_planes("mma", tile, planes, orders, (tile, tile, one.BLOCK_K), kernels)


def by_dmma(tile: int, orders: str, arch: int = 900, kernels: Any = None) -> Recording:
    return of_float64(tile, orders, (tile, tile, 32), arch, kernels)


@pytest.mark.parametrize("orders", ["KM", "MK"])
@pytest.mark.parametrize(
    ("tile", "planes"), [(64, 1), (128, 1), (192, 1), (256, 1), (64, 3), (128, 3), (192, 2)]
)
def test_products_of_warpgroups(tables: Tables, tile: int, planes: int, orders: str) -> None:
    recording = by_wgmma(tile, planes, orders)
    expect_right(recording, tables)
    depth = WGMMA[planes][0].BLOCK_K
    swizzles = [int(tables[f"swizzle {MAJORS[order]} {depth}"][0]) for order in orders]
    assert [swizzle for _, swizzle in recording.maps] == swizzles


@pytest.mark.parametrize("orders", ["KM", "MK"])
@pytest.mark.parametrize(("tile", "planes"), [(64, 1), (128, 1), (64, 2), (128, 3)])
def test_products_of_warps(tables: Tables, tile: int, planes: int, orders: str) -> None:
    expect_right(by_mma(tile, planes, orders), tables)


@pytest.mark.parametrize("orders", ["KM", "MK"])
@pytest.mark.parametrize(("tile", "arch"), [(64, 900), (128, 900), (64, 800)])
def test_float64_products(tables: Tables, tile: int, arch: int, orders: str) -> None:
    expect_right(by_dmma(tile, orders, arch), tables)


MUTANTS = {
    "LBO of another chunk": (
        "gemm_wgmma.cuh",
        "16 : NEXT_ATOM * int(sizeof(Plane))",
        "16 : STRIDE_BYTES",
        lambda kernels: by_wgmma(128, 1, "KM", kernels),
    ),
    "SBO of four rows": (
        "gemm_wgmma.cuh",
        "8 * ROW * int(sizeof(Plane))",
        "4 * ROW * int(sizeof(Plane))",
        lambda kernels: by_wgmma(64, 1, "KM", kernels),
    ),
    "swizzle of 128 bytes for rows of 64": (
        "gemm_wgmma.cuh",
        "ROW == 64 ? 1 : 2",
        "1",
        lambda kernels: by_wgmma(64, 3, "KM", kernels),
    ),
    "half a step along the contraction": (
        "gemm_wgmma.cuh",
        "mn * ROW + step * WGMMA_K :",
        "mn * ROW + step * WGMMA_K / 2 :",
        lambda kernels: by_wgmma(64, 1, "KM", kernels),
    ),
    "the second warpgroup begins too early": (
        "gemm_wgmma.cuh",
        "mn * ROW + step * WGMMA_K :",
        "mn / 2 * ROW + step * WGMMA_K :",
        lambda kernels: by_wgmma(64, 1, "KM", kernels),
    ),
    "rows of an accumulator exchanged": (
        "gemm_wgmma.cuh",
        "at % 4 / 2 * 8",
        "(1 - at % 4 / 2) * 8",
        lambda kernels: by_wgmma(64, 1, "KM", kernels),
    ),
    "columns of an accumulator exchanged": (
        "gemm_wgmma.cuh",
        "c + lane % 4 * 2",
        "c + (3 - lane % 4) * 2",
        lambda kernels: by_wgmma(64, 1, "KM", kernels),
    ),
    "quarters of a fragment exchanged": (
        "fragments.cuh",
        "lane >> UPPER_MN_BIT & 1",
        "lane >> (7 - UPPER_MN_BIT) & 1",
        lambda kernels: by_mma(64, 1, "KM", kernels),
    ),
    "chunks of another row's exchange": (
        "fragments.cuh",
        "^ T::swizzle(row);",
        "^ T::swizzle(row + 1);",
        lambda kernels: by_mma(64, 1, "KM", kernels),
    ),
    "halves of a warp's sums exchanged": (
        "gemm_mma.cuh",
        "e / 2 * 8 + lane / 4",
        "(1 - e / 2) * 8 + lane / 4",
        lambda kernels: by_mma(64, 1, "KM", kernels),
    ),
    "float64 terms of other lanes": (
        "gemm_dmma.cuh",
        "k = threadIdx.x % 4;",
        "k = threadIdx.x / 8 % 4;",
        lambda kernels: by_dmma(64, "KM", kernels=kernels),
    ),
    "float64 halves of a piece exchanged": (
        "gemm_dmma.cuh",
        "fragment * FRAGMENT + half * 2, k",
        "fragment * FRAGMENT + (1 - half) * 2, k",
        lambda kernels: by_dmma(64, "KM", kernels=kernels),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_formula_is_seen(tables: Tables, name: str) -> None:
    file, old, new, record = MUTANTS[name]
    recording = record(kernels_with(file, old, new))
    with pytest.raises(AssertionError):
        expect_right(recording, tables)


def test_wrong_swizzle_of_boxes_is_seen(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Wgmma.box
    monkeypatch.setattr(Wgmma, "box", lambda *args: (box(*args)[0], 0))
    recording = by_wgmma(64, 1, "KM")
    with pytest.raises(AssertionError):
        expect_right(recording, tables)


# ---- the emulator


@pytest.mark.parametrize("name", ["mma_bf16", "mma_f16", "mma_f64", "mma_f64_large"])
def test_fragments_that_the_emulator_is_tested_with(tables: Tables, name: str) -> None:
    instruction = INSTRUCTIONS[name]
    for operand, layout in (("A", instruction.a), ("B", instruction.b), ("C", instruction.d)):
        np.testing.assert_array_equal(
            element_numbers(layout), tables[f"fragment {name} {operand}"], operand
        )


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(tables: Tables, transposed: bool) -> None:
    matrices = np.random.default_rng(1).permutation(4 * 8 * 8).astype(np.uint16)
    registers = uninitialised((4, 32), np.uint32)
    kernel = Module(FOLDER / "fragments.cu").get_function("ldmatrix")
    kernel((1,), (32,), (matrices, registers, np.bool_(transposed)))
    table = tables["matrices ldmatrix" + "_trans" * transposed].astype(int)
    values = registers.view(np.uint16).reshape(4, 32, 2).swapaxes(1, 2)
    np.testing.assert_array_equal(values.reshape(-1), matrices[table])


@pytest.mark.parametrize("orders", ["KM", "MK"])
@pytest.mark.parametrize(
    ("depth", "columns"), [(depth, columns) for depth in WIDTHS for columns in WIDTHS[depth]]
)
def test_products_of_the_emulator(tables: Tables, depth: int, columns: int, orders: str) -> None:
    """Descriptors, operands in memory and accumulators are CuTe's; an unused LBO is any."""
    kernel = Module(FOLDER / "products.cu").get_function("product")
    rng = np.random.default_rng(columns + depth)
    matrices, images, descriptors = [], [], []
    names = (f"{MAJORS[orders[0]]} {depth} 128", f"{MAJORS[orders[1]]} {depth} {columns}")
    for operand, name, size in zip("AB", names, (IMAGE_A, IMAGE_B), strict=True):
        places = tables[f"place {name}"].astype(int).reshape(-1, depth) // 2
        matrix = rng.integers(-8, 9, places.shape)
        image = np.zeros(size // 2, ml_dtypes.bfloat16)
        image[places] = matrix
        matrices.append(matrix)
        images.append(image)
        descriptors.append(tables[f"descriptor {operand} {name}"])
    memory = np.concatenate(images).view(np.dtype([(one, np.uint32) for one in "xyzw"]))
    layout = tables[f"fragment m64n{columns}k16 C"].astype(int)
    steps = depth // 16
    for step in range(steps):
        first = 64 * (step % 2)  # of A's rows
        a = descriptors[0][first // 64 * steps + step]
        b = descriptors[1][step]
        if orders[0] == "M":
            a ^= np.uint64(rng.integers(1 << 14) << 16 & LEADING)
        c = rng.integers(-99, 100, (64, columns))
        d = c.T.reshape(-1)[layout].astype(np.float32)
        transposed = [np.bool_(order == "M") for order in orders]
        kernel(
            (1,),
            (128,),
            (memory, np.int32(memory.nbytes), None, d, a, b, np.int32(columns), *transposed),
            shared_mem=memory.nbytes,
        )
        terms = slice(16 * step, 16 * step + 16)
        product = c + matrices[0][first : first + 64, terms] @ matrices[1][:, terms].T
        np.testing.assert_array_equal(d, product.T.reshape(-1)[layout])
