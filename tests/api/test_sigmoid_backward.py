"""dz = dy · y · (1 − y), or dy · σ(z) · σ(−z)."""

import numpy as np
import pytest

import gpugrad
from gpugrad.gpu import arguments
from tests.support.cases import DTYPES, LAYOUTS, SHAPES, dtype_of, elementwise_arrays
from tests.support.operations import compute, expect_right

OP = "sigmoid_backward"


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("shape", [*SHAPES, (70001,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, shape, dtype, from_z):
    expect_right(backend, OP, elementwise_arrays(shape, dtype), from_z=from_z)


@pytest.mark.parametrize(
    ("dtype", "logit"), [("float64", 38), ("float32", 17), ("float16", 9), ("bfloat16", 7)]
)
def test_logits_keep_the_gradient_where_y_is_1(backend, dtype, logit):
    z = np.array([logit], dtype_of(dtype))
    arrays = {"dy": np.ones_like(z), "y": np.ones_like(z), "z": z}
    assert compute(backend, OP, arrays)["dz"] == 0
    result = expect_right(backend, OP, arrays, from_z=True)["dz"].astype(np.float64)
    np.testing.assert_allclose(result, np.exp(-float(logit)), rtol=0.01)


@pytest.mark.kernels
@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("layout", ["sliced", "padded rows"])
def test_more_rows_than_a_grid_has(backend, monkeypatch, layout, from_z):
    monkeypatch.setattr(arguments, "MAX_GRID_Y", 3)
    arrays = elementwise_arrays((8, 12), "float32")
    arrays = {name: LAYOUTS[layout](array) for name, array in arrays.items()}
    expect_right(backend, OP, arrays, from_z=from_z)


@pytest.mark.parametrize("dtype", DTYPES)
def test_over_the_whole_range_of_logits(backend, dtype):
    z = np.linspace(-760.0, 760.0, 4001).astype(dtype_of(dtype))
    z /= z.dtype.type(1 if dtype == "float64" else 6)
    dy = np.full_like(z, 3)
    expect_right(backend, OP, {"dy": dy, "z": z}, from_z=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_results(backend, dtype):
    """Gradients that a flush to zero would lose."""
    tiny = {"float64": 2.0**-1060, "float16": 2.0**-14, "bfloat16": 2.0**-126}.get(dtype, 2.0**-130)
    y = np.linspace(0, 1, 65).astype(dtype_of(dtype))
    result = expect_right(backend, OP, {"dy": np.full_like(y, tiny), "y": y})["dz"]
    assert (result[1:-1] != 0).all()


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype, from_z):
    special = np.array([np.inf, -np.inf, np.nan, 0, 1, -2, 0.25], dtype_of(dtype))
    dy, other = (one.ravel() for one in np.meshgrid(special, special))
    expect_right(backend, OP, {"dy": dy, "y": other, "z": other}, from_z=from_z)


@pytest.mark.parametrize("written", ["dy", "y", "z"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(backend, dtype, written):
    arrays = elementwise_arrays((33, 65), dtype)
    from_z = written == "z"
    expected = compute(backend, OP, arrays, from_z=from_z)["dz"]
    near = {name: backend.array(array.copy()) for name, array in arrays.items()}
    z = near["z"] if from_z else None
    result = backend.call(gpugrad.sigmoid_backward, near["dy"], near["y"], z=z, out=near[written])
    assert result is near[written]
    np.testing.assert_array_equal(backend.numpy(result), expected)


def test_y_may_accompany_the_logits(backend):
    arrays = elementwise_arrays((3, 5), "float32")
    near = {name: backend.array(array) for name, array in arrays.items()}
    result = backend.call(gpugrad.sigmoid_backward, near["dy"], near["y"], z=near["z"])
    expected = compute(backend, OP, arrays, from_z=True)["dz"]
    np.testing.assert_array_equal(backend.numpy(result), expected)
