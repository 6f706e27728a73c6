"""Another activation is another pair of functions and another header: tanh for the sigmoid."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpugrad import dispatch
from gpugrad.cpu import activation
from gpugrad.cpu.arithmetic import accumulator, wide
from gpugrad.gpu import source
from tests.support.cases import Layer, layer_arrays
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.operations import compute

LAYERS = [
    Layer((20,), 30, 10),  # one block
    Layer((67,), 40, 36),
    *(  # whole products, two tasks, blocks of rows, tiles
        Layer((300,), 128, 96, big=True),
        Layer((700,), 130, 70, big=True),
        Layer((8200,), 65, 63, big=True),
        Layer((600,), 390, 410, big=True),
    ),
]
HEADER = """
#pragma once
#include "element.cuh"

__device__ __forceinline__ float tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double tangent(double x) { return tanh(x); }

__device__ __forceinline__ Accumulator logistic(Accumulator z) { return tangent(z); }

__device__ __forceinline__ Accumulator sigmoid_gradient(Accumulator dy, Accumulator saved) {
  const Accumulator one = 1;
#if defined(FROM_LOGITS)
  saved = tangent(saved);
#endif
  return dy * (one - saved * saved);
}
"""


def tanh(z, y, scratch):
    np.copyto(y, np.tanh(wide(z, "z", scratch)), casting="unsafe")


def gradient(dy, y, z, scratch, out=None):
    """Compute dz = dy · (1 − y²)."""
    dz = scratch.array("dz", dy.shape, accumulator(dy.dtype)) if out is None else out
    y = np.tanh(wide(z, "z", scratch)) if y is None else wide(y, "y", scratch)
    np.copyto(dz, wide(dy, "dy", scratch) * (1 - y * y), casting="unsafe")
    return dz


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with tanh") / "kernels"
    shutil.copytree(source.directory(), folder)
    (folder / "sigmoid.cuh").write_text(HEADER)
    return folder


@pytest.fixture
def with_tanh(backend, kernels, monkeypatch):
    monkeypatch.setattr(activation, "sigma", tanh)
    monkeypatch.setattr(activation, "gradient", gradient)
    if backend.name != "numpy":
        runtime = EmulatorRuntime(kernels=kernels)
        monkeypatch.setattr(dispatch, "runtime", lambda: runtime)


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.products
@pytest.mark.layers
@pytest.mark.usefixtures("with_tanh")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_with_tanh(backend, layer, dtype):
    arrays = layer_arrays(layer, dtype)
    arrays = {name: one * one.dtype.type(0.125) for name, one in arrays.items()}
    (y,) = compute(backend, "dense_sigmoid", arrays).values()
    arrays["y"] = y
    x, w, b, dy, z = (arrays[name].astype(np.float64) for name in ("x", "w", "b", "dy", "z"))
    expect(y, np.tanh(x @ w + b), 1 + abs(x) @ abs(w) + abs(b))
    expect(compute(backend, "sigmoid", arrays)["y"], np.tanh(z), 1)
    for from_z in (False, True):
        dz = dy * (1 - (np.tanh(z) if from_z else y.astype(np.float64)) ** 2)
        size = abs(dz) + abs(dy) * from_z
        exact = {
            "dz": (dz, size),
            "db": (dz.sum(0), size.sum(0)),
            "dx": (dz @ w.T, size @ abs(w).T),
            "dw": (x.T @ dz, abs(x).T @ size),
        }
        for name in ("sigmoid_backward", "sigmoid_bias_backward", "dense_sigmoid_backward"):
            for result, found in compute(backend, name, arrays, from_z=from_z).items():
                expect(found, *exact[result])


def expect(found, exact, size):
    """Assert that errors are those of sums of up to 8200 terms, and of dz and them in 16 bits."""
    unit = 2.0**-53 if found.dtype == np.float64 else 2.0**-24
    relative = 8300 * unit + (2.0**-7 if found.dtype.itemsize == 2 else 0)
    assert (abs(found.astype(np.float64) - exact) <= relative * size).all()
