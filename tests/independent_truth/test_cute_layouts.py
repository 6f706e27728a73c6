"""Descriptors, swizzled tiles, fragments and accumulators, as the CuTe headers compute them.

What the kernels ask of tensor cores is recorded while they run, and compared with CuTe's tables,
element by element. tests/emulator/test_cute_layouts.py does so with what the emulator computes.
"""

from typing import Any

import pytest

from gpugrad.planning.configurations import MMA, WGMMA, Wgmma
from tests.conftest import needs_compiler

from .cute import MAJORS, Tables, layouts
from .recording import RIGHT, Recording, kernels_with, of_float64, of_planes
from .tensor_core import expect_right

pytestmark = pytest.mark.slow  # CuTe's headers take long to compile


@pytest.fixture(scope="module")
def tables() -> Tables:
    needs_compiler()
    return layouts()


def by_wgmma(tile: int, planes: int, orders: str, kernels: Any = None) -> Recording:
    """Return a product of one tile a block, of a cluster, as long as its elements have numbers."""
    one = next(one for one in WGMMA[planes] if tile == one.BLOCK_N)
    rows, columns, depth = 128 * one.CLUSTER_M, tile * one.CLUSTER_N, one.BLOCK_K
    contraction = min(2, RIGHT // (planes * max(rows, columns)) // depth) * depth
    return of_planes("wgmma", tile, planes, orders, (rows, columns, contraction), kernels)


def by_mma(tile: int, planes: int, orders: str, kernels: Any = None) -> Recording:
    one = next(one for one in MMA[planes] if tile == one.BLOCK_N)
    return of_planes("mma", tile, planes, orders, (tile, tile, one.BLOCK_K), kernels)


def by_dmma(tile: int, orders: str, arch: int = 900, kernels: Any = None) -> Recording:
    return of_float64(tile, orders, (tile, tile, 32), arch, kernels)


@pytest.mark.slow
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
    "chunks of another row's swizzle": (
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
    "float64 halves of a fragment exchanged": (
        "gemm_dmma.cuh",
        "fragment * FRAGMENT + half * 2, k",
        "fragment * FRAGMENT + (1 - half) * 2, k",
        lambda kernels: by_dmma(64, "KM", kernels=kernels),
    ),
}


@pytest.mark.slow
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
