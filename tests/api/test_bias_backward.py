"""db = Σ_i dy."""

import numpy as np
import pytest

from tests.support.cases import DTYPES, ROWS, dtype_of, random_array
from tests.support.operations import compute, expect_right, same_bits

OP = "bias_backward"


@pytest.mark.parametrize("shape", [*ROWS, (4099, 70)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(backend, shape, dtype):
    expect_right(backend, OP, {"dy": random_array(shape, dtype, 0)})


@pytest.mark.parametrize("accumulate", [False, True], ids=["write", "add"])
@pytest.mark.parametrize("sums", ["same", "float32"])
@pytest.mark.parametrize("shape", [(67, 35), (67, 40), (600, 72)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_out(backend, dtype, shape, sums, accumulate):
    sums = dtype if sums == "same" or dtype == "float64" else sums
    out = {"db": random_array(shape[1:], sums, 1)}
    arrays = {"dy": random_array(shape, dtype, 0)}
    expect_right(backend, OP, arrays, out=out, accumulate=accumulate)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_sums_do_not_stall(backend, dtype):
    """In the dtype itself a sum of ones stops growing at 1/v."""
    dy = np.ones((3000, 2), dtype_of(dtype))
    assert (compute(backend, OP, {"dy": dy})["db"] == dtype_of(dtype).type(3000)).all()


def test_no_rows_give_zeros_and_leave_sums_alone(backend):
    dy = np.empty((0, 3), np.float32)
    assert (compute(backend, OP, {"dy": dy})["db"] == 0).all()
    out = {"db": np.array([1, 2, 3], np.float32)}
    result = compute(backend, OP, {"dy": dy}, out=out, accumulate=True)
    assert (result["db"] == [1, 2, 3]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(backend, dtype):
    dy = random_array((40, 5), dtype, 0)
    dy[7, 0], dy[8, 1], dy[9, 2] = np.inf, -np.inf, np.nan
    dy[3, 3], dy[30, 3] = np.inf, -np.inf
    result = expect_right(backend, OP, {"dy": dy})["db"].astype(np.float64)
    np.testing.assert_array_equal(result[:4], [np.inf, -np.inf, np.nan, np.nan])


def test_float16_overflows_only_in_the_result(backend):
    dy = np.array([[40000, 40000], [40000, 40000], [0, -40000], [0, -40000]], np.float16)
    result = compute(backend, OP, {"dy": dy})["db"]
    np.testing.assert_array_equal(result, np.array([np.inf, 0], np.float16))


def test_rows_are_summed_whatever_their_leading_dimensions(backend):
    dy = random_array((24, 9), "float32", 0)
    flat = compute(backend, OP, {"dy": dy})["db"]
    assert same_bits(compute(backend, OP, {"dy": dy.reshape(2, 3, 4, 9)})["db"], flat)
