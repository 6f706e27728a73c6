"""dz = dy · y · (1 − y) and db = Σ_i dz in one pass."""

import numpy as np
import pytest

import gpugrad
from tests.support.cases import DTYPES, PACKED, ROWS, dtype_of, elementwise_arrays, random_array
from tests.support.operations import compute, expect_right

OP = "sigmoid_bias_backward"


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("shape", [*ROWS, (4099, 70)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, shape, dtype, from_z):
    expect_right(backend, OP, elementwise_arrays(shape, dtype), from_z=from_z)


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("sums", ["same", "float32"])
@pytest.mark.parametrize("columns", [35, "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_out(backend, dtype, columns, sums, accumulate):
    sums = dtype if sums == "same" or dtype == "float64" else sums
    shape = (67, PACKED[dtype].m if columns == "packed" else columns)
    arrays = elementwise_arrays(shape, dtype)
    out = {"dz": random_array(shape, dtype, 1), "db": random_array(shape[1:], sums, 2)}
    expect_right(backend, OP, arrays, out=out, accumulate=accumulate)


@pytest.mark.parametrize("given", ["dz", "db"])
def test_one_buffer_of_two(backend, given):
    """Only the buffer that was given is added to."""
    arrays = elementwise_arrays((67, 35), "float32")
    out = {given: random_array((67, 35) if given == "dz" else (35,), "float32", 1)}
    expect_right(backend, OP, arrays, out=out, accumulate=True)


@pytest.mark.parametrize("written", ["dy", "y", "z"])
def test_in_place(backend, written):
    arrays = elementwise_arrays((33, 65), "float32")
    from_z = written == "z"
    expected = compute(backend, OP, arrays, from_z=from_z)
    near = {name: backend.array(array.copy()) for name, array in arrays.items()}
    result = backend.call(
        gpugrad.sigmoid_bias_backward,
        near["dy"],
        near["y"],
        z=near["z"] if from_z else None,
        out=(near[written], None),
    )
    assert result.dz is near[written]
    np.testing.assert_array_equal(backend.numpy(result.dz), expected["dz"])
    np.testing.assert_array_equal(backend.numpy(result.db), expected["db"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_db_sums_what_is_not_yet_rounded(backend, dtype):
    """The sum of n equal values is n times the value, not n times the rounded value."""
    y = np.full((1024, 3), 0.3, dtype_of(dtype))
    value = float(y[0, 0]) * (1 - float(y[0, 0]))
    out = {"db": np.empty(3, np.float32)}
    result = expect_right(backend, OP, {"dy": np.ones_like(y), "y": y}, out=out)["db"]
    np.testing.assert_allclose(result, 1024 * value, rtol=1e-5)


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype, from_z):
    arrays = elementwise_arrays((40, 6), dtype)
    arrays["dy"][7, 0], arrays["dy"][8, 1], arrays["dy"][9, 2] = np.inf, -np.inf, np.nan
    arrays["y"][3, 3], arrays["y"][4, 4] = np.nan, np.inf
    arrays["z"][3, 3], arrays["z"][4, 4] = np.nan, np.inf
    expect_right(backend, OP, arrays, from_z=from_z)
