"""Calls captured in a CUDA graph and replayed on changed operands."""

from typing import Any

import numpy as np
import pytest

import gpugrad
from tests.conftest import ON_A_GPU
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import OPERATIONS, same_bits

SPLIT = Layer((600,), 9, 5)  # sums over the batch go by way of a workspace
SEVERAL_TILES = Layer((2048,), 96, 320) if ON_A_GPU else Layer((70,), 72, 136)
SPLIT_AND_LONG = Layer((60_000,), 64, 64) if ON_A_GPU else SPLIT
ROUNDS = 3


def call(name: str, arrays: Any, out: Any = None) -> Any:
    operation = OPERATIONS[name]
    options = {} if out is None else {"out": out}
    return operation.function(*(arrays[one] for one in operation.operands), **options)


def named(name: str, results: Any) -> dict[str, Any]:
    results = results if isinstance(results, tuple) else (results,)
    return dict(zip(OPERATIONS[name].results, results, strict=True))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", [SPLIT, SEVERAL_TILES], ids=str)
@pytest.mark.parametrize("buffers", [False, True], ids=["new results", "out="])
@pytest.mark.parametrize("name", OPERATIONS)
def test_replays(name, buffers, layer, dtype):
    """The bits of each replay are those of a call, whatever else the stream has done."""
    import cupy

    from bench.workload import as_device

    hosted = [layer_arrays(layer, dtype, seed) for seed in range(ROUNDS)]
    sets = [{k: as_device(array) for k, array in arrays.items()} for arrays in hosted]
    expected = [named(name, call(name, arrays)) for arrays in sets]
    fixed = {k: as_device(array) for k, array in hosted[0].items()}
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        warm = call(name, fixed)
        for _ in range(2):
            call(name, fixed, warm if buffers else None)
        stream.synchronize()
        stream.begin_capture()
        try:
            captured = named(name, call(name, fixed, warm if buffers else None))
        finally:
            graph = stream.end_capture()
        for arrays, exact in zip(sets, expected, strict=True):
            for one, array in arrays.items():
                bits = f"u{array.dtype.itemsize}"  # CuPy moves no bfloat16
                fixed[one].view(bits)[...] = array.view(bits)
            others = [named(name, call(name, fixed)) for _ in range(3)]
            graph.launch(stream)
            stream.synchronize()
            for found in (captured, *others):
                for one, result in found.items():
                    assert same_bits(result.get(), exact[one].get()), one


@pytest.mark.usefixtures("gpu")
def test_a_graph_on_another_stream_than_later_calls():
    """Its workspace is nobody else's: calls on the stream that captured it go on meanwhile."""
    import cupy

    from bench.workload import as_device

    arrays = layer_arrays(SPLIT_AND_LONG, "float32")
    operands = [as_device(arrays[one]) for one in ("dy", "y", "x", "w")]
    expected = [one.get() for one in gpugrad.dense_sigmoid_backward(*operands)]
    capturing, replaying = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    cupy.cuda.Device().synchronize()
    with capturing:
        gpugrad.dense_sigmoid_backward(*operands)
        capturing.synchronize()
        capturing.begin_capture()
        try:
            captured = gpugrad.dense_sigmoid_backward(*operands)
        finally:
            graph = capturing.end_capture()
        for _ in range(20 if ON_A_GPU else 3):
            graph.launch(replaying)
            found = gpugrad.dense_sigmoid_backward(*operands)
            capturing.synchronize()
            replaying.synchronize()
            for results in (captured, found):
                for one, exact in zip(results, expected, strict=True):
                    assert same_bits(one.get(), np.asarray(exact))
