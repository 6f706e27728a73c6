"""Matrices as 16-bit planes: what gpugrad/gpu/planes.py makes for products on tensor cores."""

import numpy as np
import pytest

from gpugrad.gpu import planes
from tests.conftest import BACKENDS, needs_compiler
from tests.support.cases import LAYOUTS, WHOLE_ELEMENTS, dtype_of, elementwise_arrays, random_array
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.planes import (
    COUNTS,
    Device,
    any_bits,
    expect_split,
    expect_split_gradient,
    exponents_apart,
    largest_anywhere,
)

DEVICES = ("emulator", "cupy")
SHAPES = (
    *((0, 5), (5, 0), (0, 0)),
    *((1, 1), (1, 33), (31, 8), (33, 7)),
    *((63, 64), (64, 65), (65, 63)),
    *((37, 41), (5, 257), (130, 12)),
)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "emulator":
        needs_compiler()
        return Device(EmulatorRuntime())
    request.getfixturevalue("gpu")
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return Device(CupyRuntime(), BACKENDS["cupy"]())


@pytest.fixture(params=COUNTS)
def count(request: pytest.FixtureRequest) -> int:
    return int(request.param)


# ---- split_planes


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device, count, shape, order):
    expect_split(device, np.array(random_array(shape, "float32", 1), order=order), count)


@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
def test_layouts(device, count, layout):
    for shape in ((20, 33), (7, 40)):
        expect_split(device, LAYOUTS[layout](random_array(shape, "float32", 1)), count)


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_number(device, count, order):
    expect_split(device, np.array(any_bits((256, 40)), order=order), count)


def test_far_magnitudes_in_a_row(device, count):
    expect_split(device, exponents_apart((64, 72)), count)


def test_more_rows_than_a_grid_has(device, count, monkeypatch):
    monkeypatch.setattr(planes, "MAX_GRID_Y", 2)
    matrix = random_array((300, 70), "float32", 1)
    expect_split(device, matrix, count)
    expect_split(device, np.asfortranarray(matrix), count)


@pytest.mark.parametrize("outer", ["rows", "columns"])
def test_one_direction(device, count, outer):
    matrix = random_array((37, 41), "float32", 1)
    expect_split(device, matrix, count, (outer,))
    program = device.program()
    found = planes.split(program.launches, program.ref(device.array(matrix)), count, outer)
    assert (found.exponents is None) == (count == 3)


# ---- plane_exponents


@pytest.mark.parametrize("order", ["C", "F"])
def test_exponents_at_powers_of_two(device, order):
    """From the largest number to the smallest, each with its neighbours, alone in its row."""
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    below = np.nextafter(powers, np.float32(0))
    matrix = np.zeros((3 * powers.size, 5), np.float32)
    matrix[:, 3] = np.concatenate([powers, -below, np.nextafter(powers, np.float32(np.inf))])
    expect_split(device, np.array(matrix, order=order), 2)
    expect_split(device, np.array(matrix.T, order=order), 2)


def test_exponents_of_what_is_not_finite(device):
    """Infinities and NaNs do not count; a row or column of nothing else has the exponent 0."""
    matrix = random_array((70, 140), "float32", 1)
    matrix[3], matrix[:, 5] = np.inf, np.nan
    matrix[7, ::2], matrix[8] = -np.inf, 0
    expect_split(device, matrix, 1)


@pytest.mark.parametrize("shape", [(600, 70), (9, 1100)], ids=str)
def test_exponents_of_many_parts(device, shape):
    """Ten splits of the rows, nine blocks of columns: the largest elements are in all of them."""
    expect_split(device, largest_anywhere(shape), 2)


# ---- sigmoid_bias_planes


@pytest.mark.parametrize("logits", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("shape", [*SHAPES[:7], (67, 36), (131, 72), (37, 41)], ids=str)
def test_gradient(device, count, shape, logits):
    arrays = elementwise_arrays(shape, "float32")
    saved, db = arrays["z" if logits else "y"], random_array(shape[1:], "float32", 9)
    expect_split_gradient(device, arrays["dy"], saved, count, logits=logits, db=db)


@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
def test_gradient_of_layouts(device, count, layout):
    arrays = elementwise_arrays((20, 36), "float32")
    dy, y = arrays["dy"], arrays["y"]
    for operands in ((LAYOUTS[layout](dy), y), (dy, LAYOUTS[layout](y))):
        expect_split_gradient(device, *operands, count, db=np.zeros(36, np.float32))


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("shape", [(67, 36), (600, 70)], ids=str)
def test_sums_of_the_gradient(device, shape, accumulate):
    """One split and ten; into every second element."""
    arrays = elementwise_arrays(shape, "float32")
    db = LAYOUTS["sliced"](random_array(shape[1:], "float32", 9))
    for count in COUNTS:
        expect_split_gradient(
            device, arrays["dy"], arrays["y"], count, db=db, accumulate_db=accumulate
        )


@pytest.mark.parametrize("outers", [("rows",), ("columns",), ("rows", "columns")], ids=str)
@pytest.mark.parametrize("shape", [(67, 36), (131, 35)], ids=str)
def test_gradient_without_sums(device, count, shape, outers):
    arrays = elementwise_arrays(shape, "float32")
    expect_split_gradient(device, arrays["dy"], arrays["y"], count, outers=outers)


def test_gradient_that_is_not_finite(device, count):
    arrays = elementwise_arrays((40, 12), "float32")
    arrays["dy"][7, 0], arrays["dy"][8, 1], arrays["dy"][9, 2] = np.inf, -np.inf, np.nan
    arrays["y"][3, 3], arrays["y"][4] = np.nan, np.inf
    expect_split_gradient(device, arrays["dy"], arrays["y"], count)


# ---- 16-bit matrices


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["C", *WHOLE_ELEMENTS])
@pytest.mark.parametrize("shape", [(5, 16), (5, 11), (1, 3), (0, 4), (4, 0)], ids=str)
def test_own_plane(device, shape, layout, dtype):
    matrix = random_array(shape, dtype, 1)
    if layout != "C":
        matrix = LAYOUTS[layout](matrix)
    program = device.program()
    found = planes.own(program.launches, program.ref(device.array(matrix)))
    assert (found.count, found.rows, found.columns) == (1, *shape)
    assert found.exponents is None
    assert found.pitch % 8 == 0
    assert found.array.dtype == dtype_of(dtype)
    brought = program.result(found.array)
    program.run()
    np.testing.assert_array_equal(device.numpy(brought)[0], matrix)


@pytest.mark.parametrize("layout", ["C", "padded rows", "read-only"])
def test_own_plane_is_a_view_where_rows_are_aligned(device, layout):
    matrix = random_array((5, 16), "float16", 1)
    matrix = device.array(matrix if layout == "C" else LAYOUTS[layout](matrix))
    program = device.program()
    given = program.ref(matrix)
    found = planes.own(program.launches, given)
    assert found.array.index == given.index
    assert not program.launches.steps
    assert found.pitch == matrix.strides[0] // 2
