"""Those that gpugrad is compared with compute the same."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gpugrad.benchmark.peers import PEERS, chosen, on_host, pytorch
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from gpugrad.testing.verification import answers, errors
from tests.conftest import ON_A_GPU
from tests.support.cases import DTYPES

REQUIRES = {"torch": "PyTorch", "jax": "JAX"}
TOLERANCES = {"float64": 1e-14, "float32": 1e-6, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_peers_compute_the_same(name, op, dtype):
    """From the operands that the library has, and from a forward pass of their own."""
    if name in REQUIRES and importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {REQUIRES[name]}")
    peer, size = PEERS[name], (33, 9, 17)
    drawn = operations.consistent_arrays(op, size, operations.dtype_of(dtype), seed=0)
    operands = {name: drawn[name] for name in OPERATIONS[op].operands}
    known = answers(op, operands, {})
    found = peer.implementations(op, drawn, "cpu")
    assert found
    for one in found:
        with one.within():
            first, again = (on_host(op, one, one.call()) for _ in range(2))
        assert first.keys() == set(OPERATIONS[op].results)
        for key, error in errors(first, known).items():
            assert error < TOLERANCES[dtype], (one.name, key)
            assert first[key].dtype == operations.dtype_of(dtype)
            np.testing.assert_array_equal(first[key], again[key])


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_versions_are_told(name):
    if name in REQUIRES and importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {REQUIRES[name]}")
    assert PEERS[name].facts()["version"]


def test_all_that_are_installed_take_part():
    found = [peer.name for peer in chosen(None)]
    assert found[0] == "numpy"
    assert set(found) <= set(PEERS)
    assert [peer.name for peer in chosen(("numpy",))] == ["numpy"]


def test_a_peer_has_nothing_for_another_device():
    drawn = operations.consistent_arrays("sigmoid", (3, 1, 5), np.dtype("f4"), seed=0)
    assert PEERS["numpy"].implementations("sigmoid", drawn, "gpu") == []
    assert PEERS["cupy"].implementations("sigmoid", drawn, "cpu") == []


@pytest.mark.parametrize("damage", [0.25, np.nan])
def test_an_error_is_seen_in_the_result_that_has_it(damage):
    op = "dense_sigmoid_backward"
    drawn = operations.consistent_arrays(op, (33, 9, 17), np.dtype("f4"), seed=0)
    known = answers(op, drawn, {})
    results = operations.call(op, drawn, device="cpu")
    right = errors(results, known)
    largest = np.abs(results["dw"]).max()
    results["dw"][0, 0] += damage * largest
    found = errors(results, known)
    assert (found["dx"], found["db"]) == (right["dx"], right["db"])
    if np.isnan(damage):
        assert np.isnan(found["dw"])
    else:  # of the largest element that is looked at, which may not be the largest of all
        assert 0.99 * damage < found["dw"] < 2 * damage


class CudaTensor:
    """A tensor on a GPU: PyTorch's builds for the CPU have none."""

    def __init__(self, array, dtype):
        self.array, self.dtype, self.shape = array, dtype, array.shape

    def data_ptr(self):
        return self.array.data.ptr

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def view(self, dtype):
        return CudaTensor(self.array, dtype)

    @staticmethod
    def from_dlpack(array):
        import cupy

        return CudaTensor(cupy.from_dlpack(array), array.dtype.name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_views_of_cupy_arrays(dtype, gpu, monkeypatch):
    import cupy

    if ON_A_GPU:
        torch = pytest.importorskip("torch", reason="needs PyTorch")
    else:
        torch = SimpleNamespace(from_dlpack=CudaTensor.from_dlpack, **{one: one for one in DTYPES})
        monkeypatch.setitem(sys.modules, "torch", torch)
    memory = cupy.zeros((5, 8), operations.dtype_of(dtype))
    for array in (memory, memory[1:, ::2], memory.T):
        (tensor,) = pytorch.tensors({"x": array}).values()
        assert tensor.data_ptr() == array.data.ptr
        assert tensor.dtype == getattr(torch, dtype)
        assert tuple(tensor.shape) == array.shape
        assert tensor.stride() == tuple(step // array.itemsize for step in array.strides)
