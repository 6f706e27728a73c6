"""y = σ(x w + b)."""

import numpy as np
import pytest

from tests.support.cases import DTYPES, LARGE_TILES, LAYERS, Layer, layer_arrays, random_array
from tests.support.operations import compute, expect_right

pytestmark = pytest.mark.products
OP = "dense_sigmoid"
LAYER = Layer((67,), 19, 35)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, layer, dtype):
    expect_right(backend, OP, layer_arrays(layer, dtype))


@pytest.mark.parametrize("layer", [LAYER, Layer((), 3, 2), Layer((5,), 0, 7)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_bias(backend, layer, dtype):
    arrays = layer_arrays(layer, dtype) | {"b": None}
    expect_right(backend, OP, arrays)


@pytest.mark.parametrize("precision", ["highest", "high", "medium", "ieee"])
def test_precisions(backend, precision):
    expect_right(backend, OP, layer_arrays(LAYER, "float32"), precision=precision)


@pytest.mark.parametrize("layer", [LAYER, Layer((2, 3), 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_out(backend, dtype, layer):
    out = {"y": random_array((*layer.lead, layer.m), dtype, 9)}
    expect_right(backend, OP, layer_arrays(layer, dtype), out=out)


@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_tiles(backend, dtype):
    expect_right(backend, OP, layer_arrays(LARGE_TILES, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturation_both_ways(backend, dtype):
    """Far logits give 0, subnormal numbers and 1, and no overflow."""
    arrays = layer_arrays(LAYER, dtype)
    arrays["x"] = (arrays["x"].astype(np.float64) * 40).astype(arrays["x"].dtype)
    expect_right(backend, OP, arrays)


@pytest.mark.parametrize("name", ["x", "w", "b"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype, name):
    arrays = layer_arrays(LAYER, dtype)
    arrays[name].flat[[2, 4, 8, 15]] = [np.inf, -np.inf, np.nan, np.inf]
    arrays["w" if name == "x" else "x"].flat[3:5] = 0
    expect_right(backend, OP, arrays)


def test_no_inputs_leave_the_bias(backend):
    arrays = layer_arrays(Layer((5,), 0, 7), "float32")
    logits = np.broadcast_to(arrays["b"], (5, 7))
    expected = compute(backend, "sigmoid", {"z": logits})["y"]
    np.testing.assert_array_equal(compute(backend, OP, arrays)["y"], expected)
