"""Products on FP64 tensor cores: what gpugrad/gpu/dmma.py launches, tiles and layouts apart."""

import functools
from typing import Any

import numpy as np
import pytest

from gpugrad.gpu.launches import Launch
from gpugrad.planning.gpu_costs import rates_of
from tests.conftest import BACKENDS, ON_A_GPU, needs_compiler
from tests.emulator import Module
from tests.support.cases import LAYOUTS, WHOLE_ELEMENTS, WRITABLE_LAYOUTS, random_array
from tests.support.dmma import TILES, expect_forward, expect_product
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.operations import same_bits
from tests.support.planes import Device

SAME_VALUES = tuple(layout for layout in WHOLE_ELEMENTS if layout != "broadcast")
SHAPES = (  # rows, columns, contraction
    *((0, 5, 7), (5, 0, 7), (5, 7, 0), (1, 1, 1), (1, 37, 41)),
    *((63, 65, 15), (64, 64, 16), (65, 63, 17), (66, 34, 50)),
    *((127, 129, 31), (128, 128, 32), (129, 127, 33), (5, 3, 101)),
    (600, 70, 3),  # more rows of tiles than are walked together
)


class Ampere(EmulatorRuntime):
    """The emulator, with the code for compute capability 8.0."""

    def launch(self, step: Launch, args: tuple[Any, ...]) -> None:
        module = _ampere(f"{self.kernels / step.stem}.cu", step.macros)
        kernel = module.get_function(step.function)
        shared = step.shared_bytes
        kernel(step.grid, step.block, args, shared_mem=shared, policy=self.schedule)


@functools.cache
def _ampere(path: str, defines: tuple[str, ...]) -> Module:
    return Module(path, defines=defines, arch=800)


def _has_them() -> bool:
    if not ON_A_GPU:
        return True
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return rates_of(CupyRuntime().facts(None).compute_capability).tensor_64 > 0


DEVICES = ("emulator", "cupy") if _has_them() else ("emulator",)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "emulator":
        needs_compiler()
        return Device(EmulatorRuntime())
    request.getfixturevalue("gpu")
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return Device(CupyRuntime(), BACKENDS["cupy"]())


@pytest.fixture(params=TILES)
def tile(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def operands(rows: int, columns: int, contraction: int) -> tuple[np.ndarray, np.ndarray]:
    return (
        random_array((rows, contraction), "float64", 1),
        random_array((columns, contraction), "float64", 2),
    )


# ---- out = left rightᵀ


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device, tile, shape):
    expect_product(device, *operands(*shape), tile)


@pytest.mark.slow
@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
def test_layouts_of_operands(device, tile, layout):
    for shape in ((66, 35, 21), (20, 68, 18)):
        left, right = operands(*shape)
        expect_product(device, LAYOUTS[layout](left), right, tile)
        expect_product(device, left, LAYOUTS[layout](right), tile)
        expect_product(device, LAYOUTS[layout](left), LAYOUTS[layout](right), tile)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("layout", [one for one in WRITABLE_LAYOUTS if one in WHOLE_ELEMENTS])
def test_layouts_of_results(device, tile, layout, accumulate):
    out = LAYOUTS[layout](random_array((66, 37), "float64", 3))
    expect_product(device, *operands(66, 37, 21), tile, out=out, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("splits", [2, 3, 5])
@pytest.mark.parametrize("columns", [36, 35])
def test_splits(device, tile, columns, splits, accumulate):
    out = random_array((66, columns), "float64", 3)
    both = operands(66, columns, 101)
    expect_product(device, *both, tile, splits=splits, out=out, accumulate=accumulate)


def test_nothing_to_sum(device, tile):
    """Gives zeros; a buffer that is added to keeps its values."""
    both = operands(5, 7, 0)
    assert (expect_product(device, *both, tile) == 0).all()
    out = random_array((5, 7), "float64", 3)
    assert same_bits(expect_product(device, *both, tile, out=out, accumulate=True), out)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2])
def test_bits_depend_neither_on_tiles_nor_on_layouts(device, splits):
    left, right = operands(70, 66, 53)
    expected = expect_product(device, left, right, 64, splits=splits)
    assert same_bits(expect_product(device, left, right, 128, splits=splits), expected)
    for layout in SAME_VALUES:
        for of_left, of_right in ((layout, "fortran"), ("read-only", layout)):
            both = LAYOUTS[of_left](left), LAYOUTS[of_right](right)
            assert same_bits(expect_product(device, *both, 64, splits=splits), expected)


def test_bits_depend_on_an_elements_row_and_column_alone(device, tile):
    left, right = operands(131, 69, 37)
    whole = expect_product(device, left, right, tile)
    part = expect_product(device, left[67:], right[30:], tile)
    assert same_bits(part, np.ascontiguousarray(whole[67:, 30:]))


@pytest.mark.parametrize("of", ["left", "right"])
def test_not_finite(device, tile, of):
    """What IEEE arithmetic gives, in the rows and columns concerned and nowhere else."""
    left, right = operands(67, 35, 19)
    one, other = (left, right) if of == "left" else (right, left)
    one[2, 3], one[4, 5], one[6, 7], one[8, 7], one[9, 18] = np.inf, -np.inf, np.nan, np.inf, np.inf
    other[:, 18] = 0
    other[30] = np.inf
    result = expect_product(device, left, right, tile)
    result = result if of == "left" else result.T
    assert np.isfinite(np.delete(np.delete(result, [2, 4, 6, 8, 9], 0), 30, 1)).all()


def test_subnormal_numbers(device, tile):
    left, right = operands(20, 30, 10)
    result = expect_product(device, left * 2.0**-1000, right * 2.0**-60, tile)
    assert 0 < np.abs(result[result != 0]).min() < 2.0**-1040


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fortran", "padded rows", "sliced"])
def test_the_code_for_small_instructions_gives_the_same(tile, layout):
    """Where the architecture lacks the large one; the emulator adds in one order for both."""
    left, right = operands(70, 66, 37)
    left = LAYOUTS[layout](left)
    expected = expect_product(Device(EmulatorRuntime()), left, right, tile)
    assert same_bits(expect_product(Device(Ampere()), left, right, tile), expected)


def test_whatever_thread_comes_first(tile):
    expect_product(Device(EmulatorRuntime("random")), *operands(70, 66, 53), tile)


# ---- y = σ(x w + b)


def layer(n: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        random_array((n, k), "float64", 1, 0.1),
        random_array((k, m), "float64", 2),
        random_array((m,), "float64", 3),
    )


@pytest.mark.parametrize("with_bias", [True, False], ids=["b", "no b"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(device, tile, shape, with_bias):
    x, w, b = layer(*shape)
    expect_forward(device, x, w, b if with_bias else None, tile)


@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
def test_layouts_of_a_layer(device, tile, layout):
    x, w, b = layer(66, 38, 21)
    change = LAYOUTS[layout]
    expect_forward(device, change(x), w, b, tile)
    expect_forward(device, x, change(w), b, tile)
    expect_forward(device, x, w, change(b), tile)
    if layout in WRITABLE_LAYOUTS:
        expect_forward(device, x, w, b, tile, out=change(np.zeros((66, 38))))


def test_rows_of_a_layer_do_not_depend_on_the_others(device, tile):
    x, w, b = layer(70, 37, 53)
    whole = expect_forward(device, x, w, b, tile)
    for rows in (slice(0, 1), slice(3, 7), slice(65, 70)):
        part = expect_forward(device, x[rows], w, b, tile)
        assert same_bits(part, np.ascontiguousarray(whole[rows]))
