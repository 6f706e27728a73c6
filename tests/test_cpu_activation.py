"""Another activation on the CPU is another pair of functions: tanh in the place of the sigmoid."""

import numpy as np
import pytest

import gpugrad
from gpugrad.calls import cache
from gpugrad.cpu import activation
from gpugrad.cpu.arithmetic import accumulator, wide
from tests.cases import Layer, layer_arrays

# One block, whole products, two tasks, blocks of rows, tiles.
LAYERS = [
    Layer((20,), 30, 10),
    Layer((300,), 128, 96),
    Layer((700,), 130, 70),
    Layer((8200,), 65, 63),
    Layer((600,), 390, 410),
]


def tanh(z, y, scratch):
    np.copyto(y, np.tanh(wide(z, "z", scratch)), casting="unsafe")


def gradient(dy, y, z, scratch, out=None):
    """Compute dz = dy · (1 − y²)."""
    dz = scratch.array("dz", dy.shape, accumulator(dy.dtype)) if out is None else out
    y = np.tanh(wide(z, "z", scratch)) if y is None else wide(y, "y", scratch)
    np.copyto(dz, wide(dy, "dy", scratch) * (1 - y * y), casting="unsafe")
    return dz


@pytest.fixture(autouse=True)
def with_tanh(monkeypatch):
    monkeypatch.setattr(activation, "sigma", tanh)
    monkeypatch.setattr(activation, "gradient", gradient)
    cache.clear()
    yield
    cache.clear()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_with_tanh(layer, dtype):
    arrays = layer_arrays(layer, dtype)
    x, w, b, dy = (arrays[name] * arrays[name].dtype.type(0.125) for name in ("x", "w", "b", "dy"))
    wide_x, wide_w, wide_b, wide_dy = (one.astype(np.float64) for one in (x, w, b, dy))
    y = gpugrad.dense_sigmoid(x, w, b, device="cpu")
    wide_y = y.astype(np.float64)
    dz = wide_dy * (1 - wide_y**2)
    expected = [
        (y, np.tanh(wide_x @ wide_w + wide_b), 1 + abs(wide_x) @ abs(wide_w) + abs(wide_b)),
        (gpugrad.sigmoid(x, device="cpu"), np.tanh(wide_x), 1),
        (gpugrad.sigmoid_backward(dy, y, device="cpu"), dz, abs(dz)),
    ]
    sums = gpugrad.sigmoid_bias_backward(dy, y, device="cpu")
    expected += [(sums.dz, dz, abs(dz)), (sums.db, dz.sum(0), abs(dz).sum(0))]
    grads = gpugrad.dense_sigmoid_backward(dy, y, x, w, device="cpu")
    expected += [
        (grads.dx, dz @ wide_w.T, abs(dz) @ abs(wide_w).T),
        (grads.dw, wide_x.T @ dz, abs(wide_x).T @ abs(dz)),
        (grads.db, dz.sum(0), abs(dz).sum(0)),
    ]
    # Sums of up to 8200 terms and less than 100 other roundings, then one to 16 bits.
    relative = 8300 * 2.0**-53 if dtype == "float64" else 2.0**-8 + 8300 * 2.0**-24
    for found, exact, size in expected:
        assert (abs(found.astype(np.float64) - exact) <= relative * size).all()
