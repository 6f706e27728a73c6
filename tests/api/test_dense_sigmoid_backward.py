"""dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz with dz = dy · y · (1 − y)."""

import itertools

import numpy as np
import pytest

from tests.support.cases import (
    DTYPES,
    LARGE_TILES,
    LAYERS,
    PACKED,
    Layer,
    dtype_of,
    layer_arrays,
    random_array,
)
from tests.support.operations import compute, expect_right

pytestmark = [pytest.mark.products, pytest.mark.layers]
OP = "dense_sigmoid_backward"
LAYER = Layer((67,), 19, 35)


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, layer, dtype, from_z):
    expect_right(backend, OP, layer_arrays(layer, dtype), from_z=from_z)


@pytest.mark.slow
@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_tiles(backend, dtype, from_z):
    expect_right(backend, OP, layer_arrays(LARGE_TILES, dtype), from_z=from_z)


@pytest.mark.slow
@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("layer", [Layer((150,), 70, 66), Layer((70,), 129, 130)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_more_outputs(backend, dtype, layer, from_z):
    """Fused kernels: two splits, or two blocks of inputs and more; every tile that there is."""
    expect_right(backend, OP, layer_arrays(layer, dtype), from_z=from_z)


@pytest.mark.parametrize("precision", ["highest", "high", "medium", "ieee"])
def test_precisions(backend, precision):
    expect_right(backend, OP, layer_arrays(LAYER, "float32"), precision=precision)


@pytest.mark.parametrize(
    "wrt", [some for size in range(4) for some in itertools.combinations("xwb", size)], ids=str
)
def test_wrt(backend, wrt):
    arrays = layer_arrays(LAYER, "float32")
    result = expect_right(backend, OP, arrays, wrt=wrt)
    every = compute(backend, OP, arrays)
    for name in wrt:
        np.testing.assert_array_equal(result[f"d{name}"], every[f"d{name}"])


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("sums", ["same", "float32"])
@pytest.mark.parametrize("packed", [False, True], ids=["elements", "packs"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_out(backend, dtype, packed, sums, accumulate, from_z):
    arrays = layer_arrays(PACKED[dtype] if packed else LAYER, dtype)
    sums = dtype if sums == "same" or dtype == "float64" else sums
    out = {
        "dx": random_array(arrays["x"].shape, dtype, 7),
        "dw": random_array(arrays["w"].shape, sums, 8),
        "db": random_array(arrays["b"].shape, sums, 9),
    }
    expect_right(backend, OP, arrays, from_z=from_z, out=out, accumulate=accumulate)


@pytest.mark.parametrize("wide", ["dw", "db"])
@pytest.mark.parametrize("rows", [67, 300])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_buffers_of_two_dtypes(backend, dtype, rows, wide):
    arrays = layer_arrays(Layer((rows,), 19, 35), dtype)
    dtypes = {"dw": dtype, "db": dtype} | {wide: "float32"}
    out = {name: random_array(arrays[name[1]].shape, one, 7) for name, one in dtypes.items()}
    expect_right(backend, OP, arrays, out=out, accumulate=True)


@pytest.mark.parametrize("given", ["dx", "dw", "db"])
def test_one_buffer_of_three(backend, given):
    arrays = layer_arrays(LAYER, "float32")
    out = {given: random_array(arrays[given[1]].shape, "float32", 7)}
    expect_right(backend, OP, arrays, out=out, accumulate=True)
    out = {given: random_array(arrays[given[1]].shape, "float32", 7)}
    expect_right(backend, OP, arrays, out=out, accumulate=True, wrt=(given[1],))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dz_is_not_rounded_on_its_way_into_the_sums(backend, dtype):
    y = np.full((1024, 3), 0.3, dtype_of(dtype))
    value = float(y[0, 0]) * (1 - float(y[0, 0]))
    one = dtype_of(dtype).type(1)
    arrays = {
        "dy": np.full_like(y, one),
        "y": y,
        "x": np.full((1024, 2), one),
        "w": np.full((2, 3), one),
    }
    out = {"dw": np.empty((2, 3), np.float32), "db": np.empty(3, np.float32)}
    result = expect_right(backend, OP, arrays, out=out)
    np.testing.assert_allclose(result["db"], 1024 * value, rtol=1e-5)
    result = expect_right(backend, OP, arrays, out=out, precision="ieee")
    np.testing.assert_allclose(result["dw"], 1024 * value, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "logit"), [("float64", 38), ("float32", 17), ("float16", 9), ("bfloat16", 7)]
)
def test_logits_keep_the_gradient_where_y_is_1(backend, dtype, logit):
    arrays = layer_arrays(LAYER, dtype)
    arrays["z"] = np.full_like(arrays["z"], logit)
    arrays["y"] = np.ones_like(arrays["z"])
    assert not any(array.any() for array in compute(backend, OP, arrays).values())
    result = expect_right(backend, OP, arrays, from_z=True)
    assert all(array.any() for array in result.values())


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("name", ["dy", "y", "z", "x", "w"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype, name, from_z):
    arrays = layer_arrays(LAYER, dtype)
    arrays[name].flat[[2, 40, 80, 150]] = [np.inf, -np.inf, np.nan, np.inf]
    expect_right(backend, OP, arrays, from_z=from_z)


def test_agrees_with_its_parts(backend):
    """The composition of the other functions, within the bounds of both."""
    arrays = layer_arrays(LAYER, "float64")
    whole = compute(backend, OP, arrays)
    parts = compute(backend, "sigmoid_bias_backward", arrays)
    products = compute(backend, "matmul_backward", arrays | {"dy": parts["dz"]})
    for name, part in {**products, "db": parts["db"]}.items():
        np.testing.assert_allclose(whole[name], part, rtol=1e-12, atol=1e-12)
