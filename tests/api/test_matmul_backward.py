"""dx = dy wᵀ and dw = xᵀ dy."""

import numpy as np
import pytest

from tests.support.cases import (
    DTYPES,
    LARGE_TILES,
    LAYERS,
    LAYOUTS,
    PACKED,
    Layer,
    layer_arrays,
    random_array,
)
from tests.support.operations import compute, expect_right

pytestmark = pytest.mark.products
OP = "matmul_backward"
LAYER = Layer((67,), 19, 35)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, layer, dtype):
    expect_right(backend, OP, layer_arrays(layer, dtype))


@pytest.mark.slow
@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_large_tiles(backend, dtype):
    expect_right(backend, OP, layer_arrays(LARGE_TILES, dtype))


@pytest.mark.parametrize("precision", ["highest", "high", "medium", "ieee"])
def test_precisions(backend, precision):
    expect_right(backend, OP, layer_arrays(LAYER, "float32"), precision=precision)


@pytest.mark.parametrize("wrt", [("x",), ("w",), (), ["w", "x"], {"x"}, "xw"], ids=str)
def test_wrt(backend, wrt):
    arrays = layer_arrays(LAYER, "float32")
    result = expect_right(backend, OP, arrays, wrt=wrt)
    both = compute(backend, OP, arrays)
    for name in wrt:
        np.testing.assert_array_equal(result[f"d{name}"], both[f"d{name}"])


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("layer", [LAYER, Layer((1031,), 5, 3), Layer((3, 5), 7, 2)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_out(backend, dtype, layer, accumulate):
    arrays = layer_arrays(layer, dtype)
    out = {
        "dx": random_array(arrays["x"].shape, dtype, 7),
        "dw": random_array(arrays["w"].shape, dtype, 8),
    }
    expect_right(backend, OP, arrays, out=out, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("layer", [LAYER, Layer((1031,), 5, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float32_sums_of_16_bit_inputs(backend, dtype, layer, accumulate):
    out = {"dw": random_array((layer.k, layer.m), "float32", 8)}
    expect_right(backend, OP, layer_arrays(layer, dtype), out=out, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("sums", ["same", "float32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_out(backend, dtype, sums, accumulate):
    arrays = layer_arrays(PACKED[dtype], dtype)
    sums = dtype if sums == "same" or dtype == "float64" else sums
    out = {
        "dx": random_array(arrays["x"].shape, dtype, 7),
        "dw": random_array(arrays["w"].shape, sums, 8),
    }
    expect_right(backend, OP, arrays, out=out, accumulate=accumulate)


@pytest.mark.parametrize("fortran", ["", "dy", "x", "w", "xw"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packs_along_rows_and_columns(backend, dtype, fortran):
    arrays = layer_arrays(PACKED[dtype], dtype)
    for name in arrays:
        if name in (fortran, *fortran):
            arrays[name] = LAYOUTS["fortran"](arrays[name])
    expect_right(backend, OP, arrays)


def test_nothing_to_sum_gives_zeros(backend):
    """Of dx without outputs, of dw without rows; buffers that are added to keep their values."""
    assert (compute(backend, OP, layer_arrays(Layer((5,), 7, 0), "float32"))["dx"] == 0).all()
    arrays = layer_arrays(Layer((0,), 5, 7), "float32")
    assert (compute(backend, OP, arrays)["dw"] == 0).all()
    out = {"dw": np.ones((5, 7), np.float32)}
    assert (compute(backend, OP, arrays, out=out, accumulate=True)["dw"] == 1).all()


@pytest.mark.parametrize("name", ["dy", "x", "w"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype, name):
    """What IEEE arithmetic gives: 0 · ∞ and ∞ − ∞ are NaN, in the rows and columns concerned."""
    arrays = layer_arrays(LAYER, dtype)
    array = arrays[name]
    array[2, 3], array[4, 5], array[6, 7], array[8, 7], array[9, 1] = (
        np.inf,
        -np.inf,
        np.nan,
        np.inf,
        np.inf,
    )
    for other in {"dy", "x", "w"} - {name}:
        arrays[other][:, 1] = 0
        arrays[other][9] = 0
    expect_right(backend, OP, arrays)


def test_float16_overflows_only_in_the_result(backend):
    dy = np.array([[60000, 60000], [60000, -60000]], np.float16)
    w = np.array([[4, 4]], np.float16)
    x = np.array([[4], [4]], np.float16)
    result = expect_right(backend, OP, {"dy": dy, "x": x, "w": w})
    np.testing.assert_array_equal(result["dx"], np.array([[np.inf], [0]], np.float16))
    np.testing.assert_array_equal(result["dw"], np.array([[np.inf, 0]], np.float16))


def test_subnormal_products(backend):
    """Values that a flush to zero would lose."""
    arrays = layer_arrays(LAYER, "float32")
    arrays["dy"] *= np.float32(2.0**-130)
    result = expect_right(backend, OP, arrays)
    assert np.count_nonzero(result["dx"]) == result["dx"].size
