"""Arrays of other libraries on a GPU: streams, memory and captures are their own."""

import gc
import sys

import cupy
import numpy as np
import pytest

import gpugrad
from gpugrad import calls
from gpugrad.arrays import kinds
from tests import driver
from tests.conftest import ON_A_GPU
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import OPERATIONS, same_bits
from tests.support.played_frameworks import Jax, Torch

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played"),
]
SPLIT = Layer((600,), 9, 5)  # sums over the batch go by way of a workspace
GLOBAL = 0  # the mode of torch.cuda.graph


@pytest.fixture
def torch(monkeypatch):
    module = Torch()
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.fixture
def jax(monkeypatch):
    module = Jax()
    monkeypatch.setitem(sys.modules, "jax", module)
    monkeypatch.setattr(kinds, "_held", type(kinds._held)())
    return module


def called(name, arrays, make):
    operation = OPERATIONS[name]
    results = operation.function(*(make(arrays[one]) for one in operation.operands))
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_results_of_tensors(torch, name, dtype):
    arrays = layer_arrays(SPLIT, dtype)
    expected = called(name, arrays, _as_cupy)
    found = called(name, arrays, torch.tensor)
    torch.stream.synchronize()
    for one, exact in zip(found, expected, strict=True):
        assert isinstance(one, torch.Tensor)
        assert same_bits(one.array.get(), exact.get())


def _as_cupy(array):
    result = cupy.empty(array.shape, array.dtype)
    result.data.copy_from_host(np.ascontiguousarray(array).ctypes.data, array.nbytes)
    return result


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_second_call_is_found_bound(library, request, monkeypatch):
    module = request.getfixturevalue(library)
    arrays = layer_arrays(SPLIT, "float32")
    names = ("dy", "y", "x", "w")
    expected = gpugrad.dense_sigmoid_backward(*(_as_cupy(arrays[one]) for one in names))
    made = (lambda one: module.Array(_as_cupy(one))) if library == "jax" else module.tensor
    found = []
    for bound in (False, True):
        operands = [made(arrays[one]) for one in names]
        if bound:
            monkeypatch.setattr(calls, "_bind_and_compute", None)
        found = gpugrad.dense_sigmoid_backward(*operands)
    cupy.cuda.Device().synchronize()
    for one, exact in zip(found, expected, strict=True):
        assert same_bits((one if library == "jax" else one.array).get(), exact.get())


def test_nothing_waits_for_pytorchs_stream(torch):
    """Its stream is CuPy's meanwhile: no events, and no synchronization."""
    arrays = layer_arrays(SPLIT, "float32")
    operands = [torch.tensor(arrays[one]) for one in ("dy", "y", "x", "w")]
    gpugrad.dense_sigmoid_backward(*operands)
    before = driver.calls()
    gpugrad.dense_sigmoid_backward(*operands)
    made = driver.calls() - before
    assert made["cuLaunchKernel"] >= 2
    waits = {name for name in made if name.startswith("event") or "Synchronize" in name}
    assert waits | ({"streamWaitEvent", "memcpy", "malloc"} & set(made)) == set()


def test_workspaces_are_pytorchs(torch):
    """Also in a graph, in whose capture nobody may allocate by cudaMalloc."""
    hosted = [layer_arrays(SPLIT, "float32", seed) for seed in range(2)]
    names = ("dy", "y", "x", "w")
    operands = [torch.tensor(hosted[0][one]) for one in names]
    gpugrad.dense_sigmoid_backward(*operands)
    torch.stream.synchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    torch.taken.clear()
    torch.stream.begin_capture(GLOBAL)
    grads = gpugrad.dense_sigmoid_backward(*operands)
    graph = torch.stream.end_capture()
    assert len(torch.taken) > len(grads)
    for arrays in hosted:
        for one, tensor in zip(names, operands, strict=True):
            tensor.array.set(arrays[one], stream=torch.stream)
        graph.launch(torch.stream)
        torch.stream.synchronize()
        expected = gpugrad.dense_sigmoid_backward(*(_as_cupy(arrays[one]) for one in names))
        for one, exact in zip(grads, expected, strict=True):
            assert same_bits(one.array.get(), exact.get())


def test_operands_of_jax_stay_until_they_are_read(jax):
    """XLA reuses the memory of what is dropped, which kernels that wait in a stream still read."""
    arrays = layer_arrays(SPLIT, "float32")
    expected = gpugrad.dense_sigmoid(*(arrays[one] for one in "xwb"), device="cpu")
    operands = [jax.Array(_as_cupy(arrays[one])) for one in "xwb"]
    y = gpugrad.dense_sigmoid(*operands)
    del operands
    gc.collect()
    assert np.allclose(y.get(), expected, rtol=1e-5)
    assert len(kinds._held) == 1
    gpugrad.sigmoid(jax.Array(_as_cupy(arrays["z"])))
    assert len(kinds._held) == 1  # those that are done are dropped


class OnAStream:
    """An array of CUDA's interface, which is still written by its stream."""

    def __init__(self, values, stream):
        self.array, self.stream = cupy.zeros(values.shape, values.dtype), stream
        self.source = _as_cupy(values)
        cupy.cuda.Device().synchronize()
        with stream:
            self.array[...] = self.source

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__ | {"stream": self.stream.ptr}


def test_stream_of_an_interface_is_waited_for_once():
    arrays = layer_arrays(SPLIT, "float32")
    names = ("dy", "y", "x", "w")
    expected = gpugrad.dense_sigmoid_backward(*(_as_cupy(arrays[one]) for one in names))
    theirs = cupy.cuda.Stream(non_blocking=True)
    operands = [OnAStream(arrays[one], theirs) for one in names]
    before = driver.calls()
    grads = gpugrad.dense_sigmoid_backward(*operands)
    made = driver.calls() - before
    assert (made["eventRecord"], made["streamWaitEvent"]) == (1, 1)
    assert not [name for name in made if "Synchronize" in name]
    for one, exact in zip(grads, expected, strict=True):
        assert same_bits(one.get(), exact.get())
    with theirs:
        before = driver.calls()
        gpugrad.dense_sigmoid_backward(*operands)
        assert (driver.calls() - before)["streamWaitEvent"] == 0
        theirs.synchronize()


def test_stream_of_an_interface_is_not_waited_for_in_a_capture():
    y, theirs, ours = (
        layer_arrays(SPLIT, "float32")["y"],
        *(cupy.cuda.Stream(non_blocking=True) for _ in range(2)),
    )
    operand, out = OnAStream(y, theirs), cupy.zeros(y.shape, y.dtype)
    cupy.cuda.Device().synchronize()
    with ours:
        gpugrad.sigmoid(operand, out=out)
        ours.synchronize()
        ours.begin_capture()
        before = driver.calls()
        gpugrad.sigmoid(operand, out=out)
        made = driver.calls() - before
        graph = ours.end_capture()
        assert {"streamSynchronize", "streamWaitEvent", "eventRecord"} & set(made) == set()
        out.fill(0)
        graph.launch(ours)
        ours.synchronize()
    assert np.allclose(out.get(), gpugrad.sigmoid(y, device="cpu"), rtol=1e-6)


def test_stream_of_an_interface_within_a_capture():
    """In the same capture it is waited for; beside one it cannot be."""
    y, theirs, ours = (
        layer_arrays(SPLIT, "float32")["y"],
        *(cupy.cuda.Stream(non_blocking=True) for _ in range(2)),
    )
    operand, out = OnAStream(y, theirs), cupy.zeros(y.shape, y.dtype)
    gpugrad.sigmoid(operand, out=out)
    cupy.cuda.Device().synchronize()
    ours.begin_capture()
    theirs.wait_event(ours.record())
    with pytest.raises(gpugrad.DeviceError, match="z is written in the capture of a CUDA graph"):
        gpugrad.sigmoid(operand, out=out)
    with theirs:
        operand.array.fill(0)
    with ours:
        gpugrad.sigmoid(operand, out=out)
    ours.end_capture().launch(ours)
    assert (out.get(stream=ours) == 0.5).all()
