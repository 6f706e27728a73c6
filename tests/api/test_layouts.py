"""Any strides and any alignment of inputs and buffers, for every function."""

import numpy as np
import pytest

from gpugrad.errors import ArgumentError
from gpugrad.gpu import bind
from tests.conftest import CupyBackend
from tests.support.cases import (
    DTYPES,
    LAYOUTS,
    PACKED,
    WRITABLE_LAYOUTS,
    Layer,
    layer_arrays,
    random_array,
)
from tests.support.emulator_runtime import bind_in_place
from tests.support.operations import OPERATIONS, compute, expect_right, same_bits

FLAT, NESTED = Layer((67,), 19, 35), Layer((3, 2, 5), 6, 7)
BESIDE_NAN = ("sliced", "middle columns", "padded rows")


@pytest.fixture
def buffers_as_on_a_gpu(monkeypatch):
    """Let kernels write buffers on the host where they are."""
    monkeypatch.setattr(bind, "bind_to_host", bind_in_place)


@pytest.mark.parametrize("layer", [FLAT, NESTED], ids=["matrix", "leading dimensions"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs(backend, name, layout, layer):
    arrays = {one: LAYOUTS[layout](array) for one, array in layer_arrays(layer, "float32").items()}
    before = {one: array.copy() for one, array in arrays.items()}
    expect_right(backend, name, arrays)
    if OPERATIONS[name].takes_z:
        expect_right(backend, name, arrays, from_z=True)
    assert all(same_bits(arrays[one], before[one]) for one in arrays), "an input was written"


@pytest.mark.parametrize("layout", ["padded rows", "element offset", "byte offset", "reversed"])
@pytest.mark.parametrize("dtype", [one for one in DTYPES if one != "float32"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_of_other_dtypes(backend, name, dtype, layout):
    """Alignments matter by the size of an element."""
    arrays = {one: LAYOUTS[layout](array) for one, array in layer_arrays(FLAT, dtype).items()}
    expect_right(backend, name, arrays)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_different_layout_for_each_input(backend, name):
    arrays = layer_arrays(FLAT, "float32")
    known = [LAYOUTS[one] for one in backend.layouts]
    for shift in range(len(known)):
        layouts = known[shift:] + known[:shift]
        mixed = {one: layout(arrays[one]) for one, layout in zip(arrays, layouts, strict=False)}
        expect_right(backend, name, mixed)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", OPERATIONS)
def test_arrays_within_the_elements_of_others_are_refused_on_a_gpu(name):
    """Kernels load whole elements; NumPy's arrays are copied on their way."""
    backend = CupyBackend()
    first = OPERATIONS[name].operands[0]
    arrays = layer_arrays(FLAT, "float32")
    for one in (LAYOUTS["byte offset"](arrays[first]), _within(arrays[first])):
        says = f"{first} starts or strides within an element, expected whole elements on a GPU"
        with pytest.raises(ArgumentError, match=says):
            compute(backend, name, arrays | {first: one})


def _within(array):
    """Rows that do not begin at whole elements."""
    rows, columns = array.shape
    pitch = array.itemsize * columns + 2
    memory = np.zeros(rows * pitch, np.uint8)
    return np.ndarray(array.shape, array.dtype, memory, 0, (pitch, array.itemsize))


@pytest.mark.parametrize("layer", [FLAT, NESTED], ids=["matrix", "leading dimensions"])
@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_buffers(backend, name, layout, layer):
    arrays = layer_arrays(layer, "float32")
    for accumulate in [False, True] if OPERATIONS[name].accumulates else [False]:
        out = {
            result: LAYOUTS[layout](random_array(_like(result, arrays).shape, "float32", 9))
            for result in OPERATIONS[name].results
        }
        expect_right(backend, name, arrays, out=out, accumulate=accumulate)
        if layout in BESIDE_NAN:
            expect_nothing_beside(out)


@pytest.mark.parametrize("name", OPERATIONS)
def test_packs_at_a_different_pitch_in_each_input(backend, name):
    arrays = layer_arrays(PACKED["float32"], "float32")
    for one in OPERATIONS[name].operands:
        expect_right(backend, name, arrays | {one: LAYOUTS["padded rows"](arrays[one])})
    if OPERATIONS[name].takes_z:
        z = LAYOUTS["padded rows"](arrays["z"])
        expect_right(backend, name, arrays | {"z": z}, from_z=True)


@pytest.mark.kernels
@pytest.mark.usefixtures("buffers_as_on_a_gpu")
@pytest.mark.parametrize("layout", ["fortran", "element offset", *BESIDE_NAN])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_buffers_that_kernels_write(backend, name, dtype, layout):
    """Packs of inputs, with what is left of a row beside them, go into rows of any pitch."""
    rows = LAYOUTS["padded rows"]
    arrays = {one: rows(array) for one, array in layer_arrays(Layer((9,), 19, 35), dtype).items()}
    out = {
        result: LAYOUTS[layout](random_array(_like(result, arrays).shape, dtype, 9))
        for result in OPERATIONS[name].results
    }
    expect_right(backend, name, arrays, out=out)
    if layout in BESIDE_NAN:
        expect_nothing_beside(out)


def expect_nothing_beside(out: dict[str, np.ndarray]) -> None:
    for view in out.values():
        assert np.isnan(view.base).sum() == view.base.size - view.size, "written beside out"


def _like(result: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the array that a result is shaped like."""
    return arrays[result if result == "y" else result[1:]]
