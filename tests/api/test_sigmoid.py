"""y = σ(z)."""

import numpy as np
import pytest

import gpugrad
from gpugrad.gpu import arguments
from tests.support.cases import DTYPES, LAYOUTS, SHAPES, dtype_of, elementwise_arrays
from tests.support.operations import compute, expect_right

OP = "sigmoid"


@pytest.mark.parametrize("shape", [*SHAPES, (70001,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, shape, dtype):
    expect_right(backend, OP, elementwise_arrays(shape, dtype))


@pytest.mark.kernels
@pytest.mark.parametrize("layout", ["sliced", "padded rows"])
def test_more_rows_than_a_grid_has(backend, monkeypatch, layout):
    monkeypatch.setattr(arguments, "MAX_GRID_Y", 3)
    arrays = elementwise_arrays((8, 12), "float32")
    arrays = {name: LAYOUTS[layout](array) for name, array in arrays.items()}
    expect_right(backend, OP, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
def test_over_the_whole_range(backend, dtype):
    """Down to subnormal results and beyond, with the relative accuracy of the rest."""
    lowest = -760.0 if dtype == "float64" else -120.0
    expect_right(backend, OP, {"z": np.linspace(lowest, 60, 4001).astype(dtype_of(dtype))})


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes(backend, dtype):
    largest = np.array([60000], dtype_of(dtype))
    z = np.concatenate([np.array([0, -0.0, np.inf, -np.inf, np.nan]), largest, -largest])
    result = expect_right(backend, OP, {"z": z.astype(dtype_of(dtype))})["y"]
    expected = [0.5, 0.5, 1, 0, np.nan, 1, 0]
    np.testing.assert_array_equal(result.astype(np.float64), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(backend, dtype):
    z = elementwise_arrays((33, 65), dtype)["z"]
    expected = compute(backend, OP, {"z": z})["y"]
    shared = backend.array(z.copy())
    assert backend.call(gpugrad.sigmoid, shared, out=shared) is shared
    np.testing.assert_array_equal(backend.numpy(shared), expected)
