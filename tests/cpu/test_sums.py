"""Sums over very many rows on the CPU lose no digits."""

import numpy as np
import pytest

import gpugrad

ROWS = 10**7


def ulps(sums, values):
    """Distance of sums from those in float64, in units in the last place."""
    exact = values.sum(axis=0, dtype=np.float64)
    return np.max(np.abs(sums - exact) / np.spacing(np.abs(exact).astype(np.float32)))


@pytest.fixture(scope="module", params=["positive", "a mean of 0.1"])
def dy(request):
    random = np.random.default_rng(0)
    if request.param == "positive":
        return random.random((ROWS, 2), np.float32)
    return random.standard_normal((ROWS, 2), np.float32) + np.float32(0.1)


def test_bias_backward(dy):
    assert ulps(gpugrad.bias_backward(dy, device="cpu"), dy) <= 4
    assert ulps(dy.sum(axis=0), dy) > 100, "one float32 after the other"


def test_dense_sigmoid_backward(dy):
    y = np.full_like(dy, 0.25)
    x, w = np.ones((ROWS, 1), np.float32), np.ones((1, 2), np.float32)
    grads = gpugrad.dense_sigmoid_backward(dy, y, x, w, wrt=("b",), device="cpu")
    assert ulps(grads.db, gpugrad.sigmoid_backward(dy, y, device="cpu")) <= 4


def test_sigmoid_bias_backward(dy):
    grads = gpugrad.sigmoid_bias_backward(dy, np.full_like(dy, 0.25), device="cpu")
    assert ulps(grads.db, grads.dz) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 1024])
def test_contractions_that_are_longer_than_a_block(rows):
    terms = 1_100_000
    x = np.broadcast_to(np.float32(1), (rows, terms))
    w = np.full((terms, 1), 1e-6, np.float32)
    y = gpugrad.dense_sigmoid(x, w, device="cpu")
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-1.1)), rtol=1e-5)
    dy = np.broadcast_to(np.float32(1), (rows, 1))
    grads = gpugrad.matmul_backward(dy, x, w, wrt=("w",), device="cpu")
    assert (grads.dw == rows).all()
