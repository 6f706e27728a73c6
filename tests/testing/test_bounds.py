"""The bounds that everything is tested against: wide enough for what is right, and no wider."""

import numpy as np
import pytest

from gpugrad.testing import Answer, reference, worst_element
from tests.conftest import Backend
from tests.support.cases import DTYPES, Layer, dtype_of, elementwise_arrays, layer_arrays
from tests.support.operations import OPERATIONS, compute, expect_right

LAYER = Layer((300,), 19, 35)


def ratio_of(result, exact, bound, magnitude=None):
    return worst_element(result, Answer(exact, bound, magnitude)).ratio


@pytest.mark.parametrize(
    ("result", "exact", "bound", "ratio"),
    [
        ([1.0, 2.0], [1.0, 2.5], [0.0, 1.0], 0.5),
        ([1.0], [1.5], [0.25], 2.0),
        ([1.0], [1.5], [0.0], np.inf),
        ([np.nan], [np.nan], [0.0], 0.0),
        ([np.nan], [1.0], [1.0], np.inf),
        ([1.0], [np.nan], [0.0], np.inf),
        ([np.inf], [np.inf], [0.0], 0.0),
        ([-np.inf], [np.inf], [0.0], np.inf),
        ([np.inf], [1.0], [1e300], np.inf),
        ([np.inf], [1.0], [np.inf], 0.0),
        ([1.0, 2.0], [1.0], [0.0], np.inf),
        ([], [], [], 0.0),
    ],
)
def test_worst_element(result, exact, bound, ratio):
    assert ratio_of(np.array(result), np.array(exact), np.array(bound)) == ratio


@pytest.mark.parametrize("order", ["forwards", "backwards", "pairwise", "in blocks"])
def test_every_order_of_summation_passes(order):
    dy = layer_arrays(Layer((1000,), 1, 9), "float32")["dy"]
    rows = dy[::-1] if order == "backwards" else dy
    total = np.zeros(9, np.float32)
    if order == "pairwise":
        total = np.ascontiguousarray(rows.T).sum(axis=1)
    elif order == "in blocks":
        total = np.add.reduce([np.cumsum(rows[i : i + 50], axis=0)[-1] for i in range(0, 1000, 50)])
    else:
        for row in rows:
            total += row
    assert ratio_of(total, *reference("bias_backward", dy=dy)["db"]) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_forgotten_row_is_caught(name, dtype):
    """The last row of the batch, or the last element, left out of sums or not written."""
    arrays = layer_arrays(LAYER, dtype)
    answers = reference(name, **{one: arrays[one] for one in OPERATIONS[name].operands})
    results = compute(Backend(), name, arrays)
    fewer = {one: a if one in ("w", "b") else a[:-1] for one, a in arrays.items()}
    for one, wrong in compute(Backend(), name, fewer).items():
        if len(wrong) == len(results[one]) - 1:
            wrong = np.concatenate([wrong, np.zeros_like(results[one][-1:])])
        assert ratio_of(results[one], *answers[one]) <= 1
        assert ratio_of(wrong, *answers[one]) > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_last_place_of_16_bits_is_caught(name, dtype):
    arrays = layer_arrays(LAYER, dtype)
    answers = reference(name, **{one: arrays[one] for one in OPERATIONS[name].operands})
    for one, right in compute(Backend(), name, arrays).items():
        wrong = np.nextafter(right, np.array(np.inf, right.dtype))
        assert ratio_of(wrong, *answers[one]) > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_in_16_bits_are_caught(dtype):
    dy = layer_arrays(LAYER, dtype)["dy"]
    total = np.zeros(dy.shape[1], dtype_of(dtype))
    for row in dy:
        total = (total + row).astype(dtype_of(dtype))
    assert ratio_of(total, *reference("bias_backward", dy=dy)["db"]) > 1


def test_four_units_of_a_float32_element_are_caught():
    arrays = elementwise_arrays((1000,), "float32")
    operands = {one: arrays[one] for one in ("dy", "y")}
    right = compute(Backend(), "sigmoid_backward", arrays)["dz"]
    wrong = right * np.float32(1 + 2.0**-21)
    assert ratio_of(wrong, *reference("sigmoid_backward", **operands)["dz"]) > 1


def test_a_flush_of_subnormal_numbers_is_caught():
    z = np.array([-88.0, -100.0], np.float32)
    exact, bound, _ = reference("sigmoid", z=z)["y"]
    assert ratio_of(np.zeros(2, np.float32), exact, bound) > 1
    assert ratio_of(np.zeros(2, np.float32), exact[1:].repeat(2), bound[1:].repeat(2)) > 1


def test_float16_beyond_its_range():
    """65519 rounds to the largest number, 65520 to infinity; only near the edge both pass."""
    for total, accepted, refused in [
        (64992, [64992.0], [65024.0, np.inf]),
        (70000, [np.inf], [65504.0, -np.inf, np.nan]),
        (65520, [np.inf, 65504.0], []),
    ]:
        dy = np.array([[total - 40000], [40000]]).astype(np.float16)
        answer = reference("bias_backward", dy=dy)["db"]
        for value in accepted:
            assert ratio_of(np.array([value], np.float16), *answer) <= 1
        for value in refused:
            assert ratio_of(np.array([value], np.float16), *answer) > 1


@pytest.mark.parametrize("from_z", [False, True], ids=["y", "z"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_platforms_whose_longdouble_is_float64(name, from_z, monkeypatch):
    """The reference's own roundings are part of the bound."""
    monkeypatch.setattr("gpugrad.testing.bounds.np.longdouble", np.float64)
    arrays = layer_arrays(LAYER, "float64")
    expect_right(Backend(), name, arrays, from_z=from_z and OPERATIONS[name].takes_z)
