"""Any strides and any alignment of inputs and buffers, for every function."""

import numpy as np
import pytest

from tests.cases import DTYPES, LAYOUTS, WRITABLE_LAYOUTS, Layer, layer_arrays, random_array
from tests.operations import OPERATIONS, expect_right, same_bits

FLAT, NESTED = Layer((67,), 19, 35), Layer((3, 2, 5), 6, 7)


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


@pytest.mark.parametrize("layout", ["element offset", "byte offset", "reversed"])
@pytest.mark.parametrize("dtype", [one for one in DTYPES if one != "float32"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_of_other_dtypes(backend, name, dtype, layout):
    """Alignments matter by the size of an element."""
    arrays = {one: LAYOUTS[layout](array) for one, array in layer_arrays(FLAT, dtype).items()}
    expect_right(backend, name, arrays)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_different_layout_for_each_input(backend, name):
    arrays = layer_arrays(FLAT, "float32")
    for shift in range(len(LAYOUTS)):
        layouts = [*LAYOUTS.values()][shift:] + [*LAYOUTS.values()][:shift]
        mixed = {one: layout(arrays[one]) for one, layout in zip(arrays, layouts, strict=False)}
        expect_right(backend, name, mixed)


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
        if layout in ("sliced", "middle columns"):
            for view in out.values():
                assert np.isnan(view.base).sum() == view.base.size - view.size, "written beside out"


def _like(result: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Give the array that a result is shaped like."""
    return arrays[result if result == "y" else result[1:]]
