"""The same call gives the same bits; rows of dx and y do not depend on their neighbours."""

from importlib import import_module

import numpy as np
import pytest

from gpugrad import dispatch
from gpugrad.calls import cache
from gpugrad.testing import algorithms
from tests.support.cases import DTYPES, LARGE_TILES, LAYOUTS, Layer, layer_arrays
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.operations import OPERATIONS, compute, same_bits

LAYER = Layer((1031,), 9, 35)
OF_A_ROW = {
    "matmul_backward": "dx",
    "dense_sigmoid_backward": "dx",
    "dense_sigmoid": "y",
    "sigmoid_bias_backward": "dz",
}


PRODUCTS = [name for name, one in OPERATIONS.items() if one.takes_precision]


@pytest.mark.products
@pytest.mark.layers
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_twice(backend, name, dtype):
    arrays = layer_arrays(LAYER, dtype)
    first, second = (compute(backend, name, arrays) for _ in range(2))
    assert all(same_bits(first[one], second[one]) for one in first)


@pytest.mark.products
@pytest.mark.layers
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OF_A_ROW)
def test_rows_do_not_depend_on_the_values_of_others(backend, name, dtype):
    result = OF_A_ROW[name]
    arrays = layer_arrays(LAYER, dtype)
    changed = {one: array.copy() for one, array in arrays.items()}
    for one in ("x", "y", "z", "dy"):
        changed[one][10:] = np.nan
    before = compute(backend, name, arrays)[result]
    assert same_bits(compute(backend, name, changed)[result][:10], before[:10])


@pytest.mark.products
@pytest.mark.layers
@pytest.mark.kernels
@pytest.mark.parametrize("name", OF_A_ROW)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_depend_on_how_many_there_are(backend, name, dtype):
    result = OF_A_ROW[name]
    arrays = layer_arrays(LAYER, dtype)
    fewer = {one: a if one in ("w", "b") else a[:70] for one, a in arrays.items()}
    before = compute(backend, name, arrays)[result]
    assert same_bits(compute(backend, name, fewer)[result], before[:70])


@pytest.mark.products
@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["matmul_backward", "dense_sigmoid_backward", "dense_sigmoid"])
def test_rows_do_not_depend_on_the_tile(backend, name, dtype, request):
    """Many rows are planned with other tiles than few: the bits are the same."""
    arrays = layer_arrays(LARGE_TILES, dtype)
    small = compute(backend, name, arrays)[OF_A_ROW[name]]
    request.getfixturevalue("large_tiles")
    assert same_bits(compute(backend, name, arrays)[OF_A_ROW[name]], small)


@pytest.mark.slow
@pytest.mark.kernels
@pytest.mark.parametrize(
    "layer", [Layer((130,), 19, 35), Layer((70,), 70, 100), Layer((9,), 3, 200)], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_depend_on_the_number_of_launches(backend, dtype, layer, monkeypatch):
    """One launch for all gradients of a layer, or one for each: dx has the same bits."""
    if backend.name.startswith("emulator"):  # with tensor cores that truncate as a machine's do
        monkeypatch.setattr(dispatch, "runtime", lambda: EmulatorRuntime(arithmetic="hopper"))
    arrays = layer_arrays(layer, dtype)
    plan, found = import_module("gpugrad.planning.choice"), []
    for fused in (True, False):
        exchanged = algorithms.products_by(algorithms.fused_path, fused=fused)
        for attribute, value in exchanged.items():
            monkeypatch.setattr(plan, attribute, value)
        cache.clear()
        found.append(compute(backend, "dense_sigmoid_backward", arrays)["dx"])
    assert same_bits(*found)


@pytest.mark.products
@pytest.mark.layers
@pytest.mark.kernels
@pytest.mark.parametrize(
    "layout", ["fortran", "sliced", "reversed", "padded rows", "element offset"]
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_bits_do_not_depend_on_the_layout(backend, name, layout):
    arrays = layer_arrays(Layer((130,), 19, 35), "float32")
    other = {one: LAYOUTS[layout](array) for one, array in arrays.items()}
    plain, laid_out = (compute(backend, name, one) for one in (arrays, other))
    assert all(same_bits(plain[one], laid_out[one]) for one in plain)
