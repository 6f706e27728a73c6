"""dw is laid out as w is, so that one can be subtracted from the other as fast as it goes."""

import numpy as np
import pytest

from tests.conftest import Backend
from tests.support.cases import LAYOUTS, Layer, layer_arrays
from tests.support.operations import OPERATIONS, expect_right

NAMES = [name for name, operation in OPERATIONS.items() if "dw" in operation.results]


def dw_of(backend, name, w):
    arrays = layer_arrays(Layer((5,), *w.shape), "float32") | {"w": w}
    operands = [backend.array(arrays[one]) for one in OPERATIONS[name].operands]
    return backend.call(OPERATIONS[name].function, *operands).dw


@pytest.mark.parametrize("name", NAMES)
def test_dw_has_the_memory_order_of_w(backend, name):
    for shape in ((3, 4), (4, 1), (1, 4), (1, 1), (0, 4), (4, 0)):
        c_order = np.ones(shape, np.float32)
        for w in (c_order, np.asfortranarray(c_order), c_order):
            for _ in range(2):  # the second call is found bound
                flags = dw_of(backend, name, w).flags
                assert flags.c_contiguous == w.flags.c_contiguous
                assert flags.f_contiguous == w.flags.f_contiguous


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_any_other_layout_of_w_gives_c_order(name, layout):
    w = LAYOUTS[layout](np.ones((4, 5), np.float32))
    assert dw_of(Backend(), name, w).flags.c_contiguous == (layout != "fortran")


@pytest.mark.products
@pytest.mark.parametrize("layer", [Layer((65,), 17, 63), Layer((600,), 9, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_results_in_fortran_order_are_right(backend, name, dtype, layer):
    arrays = layer_arrays(layer, dtype)
    expect_right(backend, name, arrays | {"w": np.asfortranarray(arrays["w"])})


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", [Layer((300,), 300, 200), Layer((5000,), 64, 64), Layer((1000,), 1000, 500)], ids=str
)
def test_all_ways_of_the_cpu_write_fortran_order(layer):
    """Two tasks, blocks of rows and tiles."""
    for dtype in ("float32", "bfloat16"):
        arrays = layer_arrays(layer, dtype)
        expect_right(
            Backend(), "dense_sigmoid_backward", arrays | {"w": np.asfortranarray(arrays["w"])}
        )
