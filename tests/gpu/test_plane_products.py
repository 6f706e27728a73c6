"""Products on tensor cores from 16-bit planes: what gpugrad/gpu/plane_products.py launches.

By mma.sync, on an A100, and by wgmma, on Hopper. On the emulator, tensor cores round as those of
the machine do, and every bit is asserted.
"""

import numpy as np
import pytest

from gpugrad.planning.configurations import WGMMA
from gpugrad.planning.gpu_costs import Rates, rates_of
from tests.accuracy.arithmetic import ALGORITHM, MACHINES, by_multiply_adds
from tests.conftest import BACKENDS, ON_A_GPU, needs_compiler
from tests.support.cases import LAYOUTS, WHOLE_ELEMENTS, WRITABLE_LAYOUTS, dtype_of, random_array
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.operations import same_bits
from tests.support.plane_products import KINDS, expect_forward, expect_product, tiles
from tests.support.planes import Device

Kind = tuple[str, int]

SAME_VALUES = tuple(layout for layout in WHOLE_ELEMENTS if layout != "broadcast")
THREE, TWO, ONE, HALF, BRAIN = KINDS
OF_ONE_PLANE = (ONE, HALF, BRAIN)
IN_PLANES = (THREE, TWO, ONE)
ORIENTED = (THREE, TWO, BRAIN)  # the others have the tiles of BRAIN
SHAPES = (  # rows, columns, contraction
    *((0, 5, 7), (5, 0, 7), (5, 7, 0), (1, 1, 1), (1, 37, 41)),
    *((63, 65, 15), (64, 64, 64), (65, 63, 65), (34, 66, 200)),
    (580, 70, 3),  # more rows of tiles than are walked together
)
LARGEST = {"float32": 1.5 * 2.0**127, "float16": 1.5 * 2.0**15, "bfloat16": 1.5 * 2.0**127}
LARGE_SHAPES = ((5, 7, 0), (127, 129, 31), (128, 128, 64), (129, 20, 150))
WIDE_SHAPES = ((5, 200, 0), (127, 193, 31), (128, 192, 64), (129, 160, 150), (3, 400, 20))
WIDEST_SHAPES = ((5, 300, 0), (127, 257, 31), (128, 256, 64), (129, 224, 470), (3, 520, 20))


def name(kind: Kind) -> str:
    return "x".join(map(str, kind[::-1]))


def rates() -> Rates:
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return rates_of(CupyRuntime().facts(None).compute_capability)


def has_tensor_cores() -> bool:
    return rates().tensor_16 > 0


def on_gpu() -> tuple[str, ...]:
    """List how a GPU computes such products, if there is one."""
    if not ON_A_GPU:
        return ()
    has = {"mma": rates().tensor_16, "wgmma": rates().warpgroup_16}
    return tuple(f"cupy {algorithm}" for algorithm in has if has[algorithm])


DEVICES = (*MACHINES, *on_gpu())


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    if request.param in MACHINES:
        return emulated(request.param)
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return Device(CupyRuntime(), BACKENDS["cupy"](), request.param.split()[1])


def emulated(machine: str, algorithm: str = "", schedule: str = "ascending") -> Device:
    needs_compiler()
    runtime = EmulatorRuntime(schedule, arithmetic=machine)
    return Device(runtime, algorithm=algorithm or ALGORITHM[machine])


@pytest.fixture(params=KINDS, ids=name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def operands(kind: Kind, rows: int, columns: int, contraction: int) -> tuple[np.ndarray, ...]:
    return (
        random_array((rows, contraction), kind[0], 1),
        random_array((columns, contraction), kind[0], 2),
    )


# ---- out = left rightᵀ


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device, kind, shape):
    expect_product(device, *operands(kind, *shape), 64, kind[1])


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_large_tiles(device, kind, shape):
    expect_product(device, *operands(kind, *shape), 128, kind[1])


@pytest.mark.slow
@pytest.mark.parametrize("shape", WIDE_SHAPES, ids=str)
def test_wide_tiles(kind, shape):
    expect_product(emulated("hopper"), *operands(kind, *shape), 192, kind[1])


@pytest.mark.parametrize("splits", [1, 2])
def test_mma_on_hopper(kind, splits):
    """For what TMA cannot address."""
    device = emulated("hopper", "mma")
    expect_product(device, *operands(kind, 37, 70, 200), 64, kind[1], splits=splits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_ONE_PLANE, ids=name)
@pytest.mark.parametrize("shape", WIDEST_SHAPES, ids=str)
def test_widest_tiles(kind, shape):
    expect_product(emulated("hopper"), *operands(kind, *shape), 256, 1)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("kind", OF_ONE_PLANE, ids=name)
def test_long_sums_of_one_plane_are_promoted(kind, splits):
    """After each PROMOTION_INTERVAL terms; a split is as long as that, or longer."""
    contraction = splits * WGMMA[1][0].PROMOTION_INTERVAL + 100
    both = operands(kind, 5, 7, contraction)
    for shorter in (0, 100):
        cut = (one[:, : contraction - shorter] for one in both)
        expect_product(emulated("hopper"), *cut, 64, 1, splits=splits)


@pytest.mark.parametrize("kind", [HALF, BRAIN], ids=name)
def test_of_16_bits_wgmma_gives_the_bits_of_mma_where_neither_promotes(kind):
    both = operands(kind, 37, 70, 64)
    results = [
        expect_product(emulated("hopper", algorithm), *both, 64, kind[1])
        for algorithm in ("mma", "wgmma")
    ]
    assert same_bits(*results)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2])
def test_bits_depend_neither_on_tiles_nor_on_layouts(device, kind, splits):
    left, right = operands(kind, 70, 66, 103)
    small, *larger = tiles(device.algorithm, kind[1])
    expected = expect_product(device, left, right, small, kind[1], splits=splits)
    for tile in larger:
        result = expect_product(device, left, right, tile, kind[1], splits=splits)
        assert same_bits(result, expected)
    for orders in ("CF", "FC", "FF") if kind in ORIENTED else ("FF",):
        both = (
            np.array(one, order=order) for one, order in zip((left, right), orders, strict=True)
        )
        assert same_bits(expect_product(device, *both, 64, kind[1], splits=splits), expected)


@pytest.mark.slow
@pytest.mark.parametrize("layout", SAME_VALUES)
def test_layouts_of_operands(device, layout):
    for kind in ORIENTED:
        for shape in ((36, 35, 21), (20, 40, 24)):
            left, right = operands(kind, *shape)
            expected = expect_product(device, left, right, 64, kind[1])
            for both in ((LAYOUTS[layout](left), right), (left, LAYOUTS[layout](right))):
                assert same_bits(expect_product(device, *both, 64, kind[1]), expected)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("layout", [one for one in WRITABLE_LAYOUTS if one in WHOLE_ELEMENTS])
def test_layouts_of_results(device, layout, accumulate):
    for kind in (TWO, BRAIN):
        both = operands(kind, 66, 37, 21)
        out = LAYOUTS[layout](random_array((66, 37), kind[0], 3))
        expect_product(device, *both, 64, kind[1], out=out, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("splits", [2, 5])
def test_splits(device, kind, splits, accumulate):
    columns = 34 + splits  # with packs and without
    both = operands(kind, 20, columns, 213)
    out = random_array((20, columns), kind[0], 3)
    expect_product(device, *both, 64, kind[1], splits=splits, out=out, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("kind", [HALF, BRAIN], ids=name)
def test_sums_of_16_bits_in_float32(device, kind, splits, accumulate):
    left, right = operands(kind, 36, 35, 213)
    out = random_array((36, 35), "float32", 3)
    across = np.asfortranarray(left), np.asfortranarray(right)
    expect_product(device, *across, 64, 1, splits=splits, out=out, accumulate=accumulate)


def test_nothing_to_sum(device, kind):
    """Gives zeros; a buffer that is added to keeps its values."""
    both = operands(kind, 5, 7, 0)
    assert not expect_product(device, *both, 64, kind[1]).any()
    out = random_array((5, 7), kind[0], 3)
    added = expect_product(device, *both, 64, kind[1], out=out.copy(), accumulate=True)
    assert same_bits(added, out)


def test_bits_depend_on_an_elements_row_and_column_alone(device, kind):
    left, right = operands(kind, 131, 69, 53)
    whole = expect_product(device, left, right, 64, kind[1])
    part = expect_product(device, left[67:], right[30:], 64, kind[1])
    assert same_bits(part, np.ascontiguousarray(whole[67:, 30:]))


def test_whatever_thread_comes_first(kind):
    for machine in MACHINES:
        device = emulated(machine, schedule="random")
        expect_product(device, *operands(kind, 70, 66, 213), 64, kind[1])


# ---- far magnitudes, and what is not finite


@pytest.mark.parametrize("kind", IN_PLANES, ids=name)
@pytest.mark.parametrize("order", ["C", "F"])
def test_far_rows(device, kind, order):
    """Rows of one operand are up to 2^120 times as large as others, columns of the result too."""
    left, right = operands(kind, 66, 35, 53)
    random = np.random.default_rng(3)
    left, right = (
        np.array(np.ldexp(one, random.integers(-60, 61, (len(one), 1))), order=order)
        for one in (left, right)
    )
    expect_product(device, left, right, 64, kind[1])


@pytest.mark.parametrize("kind", IN_PLANES, ids=name)
@pytest.mark.parametrize("scales", [(-130, 10), (-140, 110), (-80, -60), (-145, 115)], ids=str)
def test_small_numbers(device, kind, scales):
    """Subnormal operands or results."""
    left, right = operands(kind, 20, 30, 37)
    scaled = (np.ldexp(one, by) for one, by in zip((left, right), scales, strict=True))
    result = expect_product(device, *scaled, 64, kind[1])
    assert result.any()


@pytest.mark.parametrize(("orders", "splits"), [("CC", 1), ("FF", 2)])
@pytest.mark.parametrize("of", ["left", "right"])
def test_not_finite(device, kind, of, orders, splits):
    """The infinities and NaNs of FFMA, and nothing else changes."""
    left, right = operands(kind, 40, 36, 53)
    one, other = (left, right) if of == "left" else (right, left)
    one[2, 3], one[4, 5], one[6, 7] = np.inf, -np.inf, np.nan
    one[8, 3:7] = np.inf, 0, -np.inf, 1  # inf − inf where both meet one sign, within 16 terms
    one[9, 3], one[9, 50] = np.inf, np.inf  # and far apart, where they meet two
    one[10, 18] = np.inf
    other[:, 18], other[20, 3] = 0, 0  # 0 · inf
    other[30, 20] = np.inf
    one[11, 20] = -np.inf
    left, right = (np.array(each, order=o) for each, o in zip((left, right), orders, strict=True))
    result = expect_product(device, left, right, 64, kind[1], splits=splits)
    expect_as_by_multiply_adds(result, left, right)
    result = result if of == "left" else result.T
    touched = [2, 4, 6, 8, 9, 10, 11]
    assert np.isfinite(np.delete(np.delete(result, touched, 0), 30, 1)).all()
    for row in (8, 9):
        assert np.isnan(result[row]).any()
        assert np.isinf(result[row]).any()
    assert np.isnan(result[10]).all()


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("kind", IN_PLANES, ids=name)
@pytest.mark.parametrize("magnitude", [90, 97, 105, 111, 112])
def test_sums_that_overflow_only_as_they_are_scaled(device, kind, magnitude, splits):
    """Three planes bring factors up by 2^16, and hold none from 2^111 on."""
    left, right = operands(kind, 20, 19, 53)
    left = np.ldexp(left, magnitude)
    left[:, ::7] *= np.float32(2.0**-30)
    result = expect_product(device, left, right, 64, kind[1], splits=splits)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("exponent", [-10, -40, -60, -130])
def test_an_infinity_meets_what_is_too_small_for_planes(device, kind, exponent):
    """Far below its row's largest, in the plane's range a zero: ∞ times it is no NaN."""
    if kind[0] == "float16":
        exponent = -10  # which holds no smaller ones
    left, right = (np.ones_like(one) for one in operands(kind, 20, 19, 53))
    left[3, 5], left[3, 7], left[4, 5] = 2.0**exponent, 2.0**15, -(2.0**exponent)
    right[4, 5] = np.inf
    result = expect_product(device, left, right, 64, kind[1])
    assert np.isposinf(result[3, 4])
    assert np.isneginf(result[4, 4])


@pytest.mark.parametrize("planes", [2, 1])
def test_the_largest_number_is_no_infinity(device, planes):
    """One plane would round it to 2^128: beside an infinity, and by itself."""
    left, right = np.zeros((20, 53), np.float32), np.zeros((19, 53), np.float32)
    largest = np.finfo(np.float32).max
    left[0, :2], left[1, :2], left[2, 1] = (np.inf, largest), (-np.inf, largest), -largest
    right[:, 0], right[0, 1], right[1:, 1] = 1, 0, 1
    result = expect_product(device, left, right, 64, planes)
    assert np.isposinf(result[0]).all()
    assert np.isneginf(result[1]).all()
    np.testing.assert_allclose(result[2, 1:], -largest, rtol=2.0**-10)


@pytest.mark.parametrize("magnitude", [80, 88, 90, 97])
def test_sums_that_overflow_inside_on_ampere(magnitude):
    left, right = operands(THREE, 20, 19, 53)
    left = np.ldexp(left, magnitude)
    assert np.isfinite(expect_product(emulated("ampere"), left, right, 64, THREE[1])).all()


def test_products_that_overflow(device, kind):
    """One product of each sum in every second row is beyond the largest number, of either sign."""
    left, right = operands(kind, 20, 19, 53)
    left[::4, 5], left[2::4, 40] = LARGEST[kind[0]], -LARGEST[kind[0]]
    right[::2, [5, 40]], right[1::2, [5, 40]] = 4, -4
    result = expect_product(device, left, right, 64, kind[1])
    assert np.isinf(result[::2]).all()
    assert np.isfinite(result[1::2]).all()
    expect_as_by_multiply_adds(result, left, right)


@pytest.mark.parametrize("kind", [THREE, BRAIN], ids=name)
def test_products_that_overflow_in_two_directions(device, kind):
    """The first infinity stays, as by FFMA, where finite products follow."""
    left, right = operands(kind, 20, 19, 213)
    largest = LARGEST[kind[0]]
    left[::2, 5], left[::2, 200] = largest, -largest
    right[:, [5, 200]] = 4
    result = expect_product(device, left, right, 64, kind[1])
    assert np.isposinf(result[::2]).all()
    expect_as_by_multiply_adds(result, left, right)


def expect_as_by_multiply_adds(result: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Assert the same infinities and NaNs."""
    with np.errstate(over="ignore"):
        expected = by_multiply_adds(left, right).astype(result.dtype)
    for same in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(same(result), same(expected))


# ---- y = σ(x w + b)


def layer(kind: Kind, n: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        random_array((n, k), kind[0], 1, 0.1),
        random_array((k, m), kind[0], 2),
        random_array((m,), kind[0], 3),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(device, kind, shape):
    x, w, b = layer(kind, *shape)
    expect_forward(device, x, w, b, 64, kind[1])


def test_no_bias(device, kind):
    x, w, _ = layer(kind, 20, 35, 53)
    expect_forward(device, x, w, None, 64, kind[1])


@pytest.mark.parametrize("kind", [THREE, BRAIN], ids=name)
def test_large_tiles_of_a_layer(device, kind):
    x, w, b = layer(kind, 129, 131, 53)
    small = expect_forward(device, x, w, b, 64, kind[1])
    assert same_bits(expect_forward(device, x, w, b, 128, kind[1]), small)


@pytest.mark.parametrize("layout", SAME_VALUES)
def test_layouts_of_a_layer(device, layout):
    change = LAYOUTS[layout]
    for kind in (TWO, BRAIN):
        x, w, b = layer(kind, 66, 38, 21)
        expected = expect_forward(device, x, w, b, 64, kind[1])
        for operands in ((change(x), w, b), (x, change(w), b), (x, w, change(b))):
            assert same_bits(expect_forward(device, *operands, 64, kind[1]), expected)
        if layout in WRITABLE_LAYOUTS:
            out = change(np.zeros((66, 38), dtype_of(kind[0])))
            assert same_bits(expect_forward(device, x, w, b, 64, kind[1], out=out), expected)


def test_rows_of_a_layer_do_not_depend_on_the_others(device, kind):
    x, w, b = layer(kind, 70, 37, 53)
    whole = expect_forward(device, x, w, b, 64, kind[1])
    for rows in (slice(0, 1), slice(3, 7), slice(65, 70)):
        part = expect_forward(device, x[rows], w, b, 64, kind[1])
        assert same_bits(part, np.ascontiguousarray(whole[rows]))
