"""Calls whose products are computed by wgmma: every function, dtype and precision class.

On the emulator the blocks of a cluster run together; widths of tiles decide on the clusters. What
the products alone compute is in tests/gpu/test_plane_products.py, bit by bit.
"""

from dataclasses import replace
from importlib import import_module

import pytest

from gpugrad import dispatch
from gpugrad.planning import configurations, tiles
from gpugrad.planning.choice import MANY_ROWS, choose, gemm
from gpugrad.planning.configurations import Wgmma
from gpugrad.planning.problem import Gemm, Problem
from gpugrad.testing.algorithms import on_tensor_cores, products_by
from tests.conftest import Backend, EmulatedBackend, needs_compiler
from tests.support.cases import LAYOUTS, Layer, layer_arrays, random_array
from tests.support.emulator_runtime import FACTS, EmulatorRuntime
from tests.support.operations import OPERATIONS, compute, expect_right, same_bits

LAYER = Layer((3, 67), 70, 41)
PRODUCTS = [name for name, one in OPERATIONS.items() if one.takes_precision]
OF_A_ROW = {"matmul_backward": "dx", "dense_sigmoid_backward": "dx", "dense_sigmoid": "y"}
CLASSES = (
    *(("float32", precision) for precision in ("highest", "high", "medium")),
    *((dtype, "highest") for dtype in ("float16", "bfloat16")),
)
WGMMA = configurations.WGMMA
WIDTHS = [one.BLOCK_N for one in WGMMA[1]]
PLAN = import_module("gpugrad.planning.choice")


def only(width: int) -> dict[int, tuple[Wgmma]]:
    """Return what stands for WGMMA if there is one width, or the widest below it that there is."""
    return {
        planes: ([one for one in of if width >= one.BLOCK_N][-1],) for planes, of in WGMMA.items()
    }


@pytest.fixture(params=WIDTHS)
def warpgroups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Emulated kernels with tiles of one width."""
    monkeypatch.setattr(configurations, "WGMMA", only(request.param))
    return on_emulator(monkeypatch)


def on_emulator(monkeypatch: pytest.MonkeyPatch, multiprocessors: int = 132) -> Backend:
    needs_compiler()
    runtime = EmulatorRuntime()
    monkeypatch.setattr(runtime, "facts", lambda _: replace(FACTS, sm_count=multiprocessors))
    monkeypatch.setattr(dispatch, "runtime", lambda: runtime)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    for attribute, value in products_by(on_tensor_cores).items():
        monkeypatch.setattr(PLAN, attribute, value)
    return EmulatedBackend()


@pytest.mark.parametrize(("dtype", "precision"), CLASSES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_results(warpgroups, name, dtype, precision):
    arrays = layer_arrays(LAYER, dtype)
    expect_right(warpgroups, name, arrays, precision=precision)
    if name == "dense_sigmoid_backward":
        expect_right(warpgroups, name, arrays, precision=precision, from_z=True)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "padded rows", "element offset"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_layouts(name, layout, monkeypatch):
    warpgroups = on_emulator(monkeypatch)
    for dtype in ("float32", "bfloat16"):
        arrays = {one: LAYOUTS[layout](a) for one, a in layer_arrays(LAYER, dtype).items()}
        expect_right(warpgroups, name, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["matmul_backward", "dense_sigmoid_backward"])
def test_sums_of_16_bits_in_float32(warpgroups, name):
    """Of a batch that is split, added to what is there."""
    arrays = layer_arrays(Layer((1100,), 7, 12), "bfloat16")
    out = {one: random_array(arrays[one[1:]].shape, "float32", 5) for one in OPERATIONS[name].sums}
    expect_right(warpgroups, name, arrays, out=out, accumulate=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_blocks_that_take_several_tiles_compute_the_same(name, dtype, monkeypatch):
    """Of few multiprocessors, each has several tiles and splits to work on."""
    arrays = layer_arrays(Layer((600,), 130, 70), dtype)
    many, few = (
        compute(on_emulator(monkeypatch, multiprocessors), name, arrays)
        for multiprocessors in (132, 2)
    )
    assert all(same_bits(many[one], few[one]) for one in many)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", OF_A_ROW)
def test_rows_depend_neither_on_others_nor_on_the_width_of_tiles(name, dtype, monkeypatch):
    warpgroups, result = on_emulator(monkeypatch), OF_A_ROW[name]
    arrays = layer_arrays(Layer((300,), 19, 200), dtype)
    found = []
    for width in WIDTHS:
        with monkeypatch.context() as patch:
            patch.setattr(configurations, "WGMMA", only(width))
            found.append(compute(warpgroups, name, arrays)[result])
    fewer = {one: a if one in ("w", "b") else a[:70] for one, a in arrays.items()}
    assert all(same_bits(one, found[0]) for one in found)
    assert same_bits(compute(warpgroups, name, fewer)[result], found[0][:70])


@pytest.mark.parametrize("extents", [(0, 5, 7), (5, 0, 7), (5, 7, 0), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_small_extents(name, extents, monkeypatch):
    warpgroups = on_emulator(monkeypatch)
    n, k, m = extents
    expect_right(warpgroups, name, layer_arrays(Layer((n,), k, m), "bfloat16"))


# ---- plans


@pytest.mark.parametrize("planes", [1, 2, 3])
def test_plans(planes):
    """Whole steps of whole clusters cover the result and the contraction; none is empty."""
    for shape in (
        *((1, 1, 1), (64, 64, 10**6), (4096, 4096, 8192), (8192, 4096, 4096)),
        *((100, 12161, 300), (12161, 100, 300), (10**6, 64, 64), (5, 7, 0), (0, 7, 5)),
    ):
        rows, columns, contraction = shape
        for split in (False, True):
            plan = planned(shape, planes, split=split)
            assert (plan.rows, plan.columns, plan.contraction) == shape
            assert (plan.algorithm, plan.planes) == ("wgmma", planes)
            assert plan.split_length % Wgmma.split_step == 0
            assert (plan.splits - 1) * plan.split_length < max(1, contraction)
            assert plan.splits * plan.split_length >= contraction
            assert split or plan.splits == 1
            plain = gemm(*shape, "float32", split=split)
            assert plan.split_length < plain.split_length + Wgmma.split_step
            one = plan.configuration
            assert plan.blocks % (one.CLUSTER_M * one.CLUSTER_N) == 0
            assert plan.blocks * one.BLOCK_M * one.BLOCK_N >= rows * columns


def planned(shape, planes, *, split=True):
    return gemm(*shape, "float32", split=split, algorithm="wgmma", planes=planes)


@pytest.mark.parametrize("planes", [1, 2, 3])
@pytest.mark.parametrize("shape", [(8192, 4096, 4096), (4096, 4096, 8192), (512, 512, 512)])
def test_no_other_width_is_predicted_to_be_faster(shape, planes, monkeypatch):
    best = planned(shape, planes)
    for width in WIDTHS:
        with monkeypatch.context() as patch:
            patch.setattr(configurations, "WGMMA", only(width))
            other = planned(shape, planes)
        assert tiles.clocks(best) <= tiles.clocks(other)


def test_large_products_take_wide_tiles_and_small_ones_many():
    for planes in (1, 2, 3):
        assert planned((8192, 4096, 4096), planes).configuration.BLOCK_N >= 128
        assert planned((512, 512, 512), planes).configuration.BLOCK_N == 64
        long = planned((64, 64, 10**6), planes)
        assert long.configuration.BLOCK_N == 64
        assert tiles.utilisation(long.splits, 132) > tiles.ENOUGH


def test_the_widest_tiles_are_for_sums_that_are_not_promoted():
    for planes, terms, width in ((1, 8192, 256), (1, 8193, 192), (2, 8192, 192), (3, 8192, 128)):
        assert width == planned((8192, 4096, terms), planes, split=False).configuration.BLOCK_N
    for contraction in (8192, 65536):
        plan = planned((4096, 4096, contraction), 1)
        assert (
            256 if plan.split_length <= Wgmma.PROMOTION_INTERVAL else 192
        ) == plan.configuration.BLOCK_N


def test_what_the_copy_engine_cannot_address_is_by_mma():
    for extent in (2**31, tiles.MAX_EXTENT + 1):
        problem = Problem("matmul_backward", extent, 4096, 4096, "float32", ("x", "w"))
        for _, step in choose(problem, "gpu", "highest", "", 0, FACTS).steps:
            assert isinstance(step, Gemm)
            assert step.algorithm == "mma"
    near = Problem("matmul_backward", tiles.MAX_EXTENT, 4096, 4096, "float32", ("x",))
    assert choose(near, "gpu", "highest", "", 0, FACTS).gemm("dx").algorithm == "wgmma"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_fused_or_several_does_not_depend_on_the_rows(dtype):
    """Which is by mma.sync, whose bits need not be those of wgmma."""
    taken = set()
    for k, m in ((64, 64), (64, 128), (128, 128), (64, 256), (256, 256), (4096, 64), (64, 300)):
        layers = {
            choose(
                Problem("dense_sigmoid_backward", n, k, m, dtype, ("x", "w", "b"), 2),
                *("gpu", "highest", "", 0, FACTS),
            ).layer
            is not None
            for n in (1, 50, 4096, MANY_ROWS, 10**7)
        }
        assert len(layers) == 1
        taken |= layers
    assert taken == {False, True}


def test_the_grid_is_in_whole_clusters():
    def grid(planes, width, rows=4096):
        (one,) = (one for one in WGMMA[planes] if width == one.BLOCK_N)
        plan = Gemm(rows, 4096, 64, 1, 64, one)
        return plan.grid(133), plan.blocks

    assert grid(3, 192)[0] == (132,)
    assert grid(3, 192, rows=100)[0] == (44,)
    of_four, blocks = grid(1, 192)
    assert of_four == (blocks,)
    assert grid(3, 64)[0] == (133,)
