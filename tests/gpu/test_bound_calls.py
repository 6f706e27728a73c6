"""Bound calls on CuPy arrays: the bits of a call bound anew, whatever changes in between."""

import ctypes
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import pytest

import gpugrad
from gpugrad import calls
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, KernelCompileError, ShapeError
from gpugrad.gpu import bound, cupy_runtime, memory
from gpugrad.gpu.bound import WIDE, BoundProgram, GpuCall
from gpugrad.gpu.launches import WORKSPACE_ALIGNMENT, Launches, TensorMap, new_ref
from gpugrad.planning.configurations import DMMA
from gpugrad.testing import algorithms
from tests import driver
from tests.conftest import ON_A_GPU, CupyBackend
from tests.support.cases import (
    DTYPES,
    LAYOUTS,
    PACKED,
    WHOLE_ELEMENTS,
    WRITABLE_LAYOUTS,
    Layer,
    layer_arrays,
    random_array,
)
from tests.support.operations import OPERATIONS, compute, same_bits

BACKEND = CupyBackend()
FLAT, NESTED, SPLIT = Layer((37,), 19, 35), Layer((3, 2, 5), 6, 7), Layer((600,), 9, 5)
WAYS = {
    "ffma": algorithms.products_by(algorithms.by_multiply_adds),
    "tensor-cores": algorithms.products_by(algorithms.on_tensor_cores),
    "fused": algorithms.products_by(algorithms.fused_path, fused=True),
}


@pytest.fixture
def noted(gpu: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each call was carried out: "bound" anew, or "found" bound."""
    found: list[str] = []
    init, call = GpuCall.__init__, GpuCall.__call__

    def bind(self: GpuCall, *args: Any, **options: Any) -> None:
        found.append("bound")
        init(self, *args, **options)

    def find(self: GpuCall, *args: Any) -> Any:
        results = call(self, *args)
        if results is not None:
            found.append("found")
        return results

    monkeypatch.setattr(GpuCall, "__init__", bind)
    monkeypatch.setattr(GpuCall, "__call__", find)
    monkeypatch.setattr(memory, "of_graphs", {})
    return found


def set_way(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(import_module("gpugrad.planning.choice"), name, value)


def bound_anew(name: str, arrays: Any, **options: Any) -> dict[str, Any]:
    """Compute with nothing in the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "cache", calls.Cache())
        return compute(BACKEND, name, arrays, **options)


def expect_found(
    noted: list[str],
    name: str,
    arrays: Any,
    others: Any,
    *,
    out: Any = None,
    **options: Any,
) -> None:
    """Assert that a call on others is found bound by one on arrays, with the bits of its own."""
    copies: list[Any] = [out and {k: alike(one) for k, one in out.items()} for _ in range(3)]
    expected = bound_anew(name, others, out=copies[0], **options)
    compute(BACKEND, name, arrays, out=copies[1], **options)
    noted.clear()
    found = compute(BACKEND, name, others, out=copies[2], **options)
    assert set(noted) == {"found"}
    for one, result in expected.items():
        assert (result is None) == (found[one] is None)
        assert result is None or same_bits(found[one], result), one
        assert result is None or found[one].strides == result.strides


def alike(array: np.ndarray) -> np.ndarray:
    """Copy an array with its strides and the last bits of its address."""
    low, high = np.lib.array_utils.byte_bounds(array)
    memory = np.zeros(high - low + 32, np.uint8)
    first = (low - memory.ctypes.data) % 16
    target = memory[first : first + high - low]
    view = np.ndarray(array.shape, array.dtype, target, array.ctypes.data - low, array.strides)
    view[...] = array
    return view


def options_of(name: str) -> list[dict[str, Any]]:
    return [{}, {"from_z": True}] if OPERATIONS[name].takes_z else [{}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ["flat", "split", "packed"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_bits(noted, monkeypatch, name, layer, dtype, way):
    set_way(monkeypatch, way)
    extents = {"flat": FLAT, "split": SPLIT, "packed": PACKED[dtype]}[layer]
    for options in options_of(name):
        expect_found(
            noted,
            name,
            layer_arrays(extents, dtype),
            layer_arrays(extents, dtype, seed=5),
            **options,
        )


@pytest.mark.parametrize("way", ["ffma", "tensor-cores"])
@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts_of_operands(noted, monkeypatch, name, layout, way):
    set_way(monkeypatch, way)
    for options in options_of(name):
        one, other = (
            {k: LAYOUTS[layout](a) for k, a in layer_arrays(FLAT, "float32", seed).items()}
            for seed in (0, 5)
        )
        expect_found(noted, name, one, other, **options)


@pytest.mark.parametrize("layout", WHOLE_ELEMENTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_leading_dimensions_of_any_strides(noted, name, layout):
    """Where rows cannot be viewed, the program copies them."""
    one, other = (
        {k: LAYOUTS[layout](a) for k, a in layer_arrays(NESTED, "float32", seed).items()}
        for seed in (0, 5)
    )
    expected = bound_anew(name, other)
    compute(BACKEND, name, one)
    noted.clear()
    found = compute(BACKEND, name, other)
    assert all(same_bits(found[k], expected[k]) for k in expected)
    assert set(noted) == {"found"}


@pytest.mark.parametrize("layout", [one for one in WRITABLE_LAYOUTS if one in WHOLE_ELEMENTS])
@pytest.mark.parametrize("layer", [FLAT, NESTED], ids=["matrix", "leading dimensions"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts_of_buffers(noted, name, layout, layer):
    """The caller's buffers are written, also where a copy has to be written first."""
    arrays, others = (layer_arrays(layer, "float32", seed) for seed in (0, 5))
    for accumulate in [False, True] if OPERATIONS[name].accumulates else [False]:
        out = {
            one: LAYOUTS[layout](random_array(shape_of(one, arrays), "float32", 9))
            for one in OPERATIONS[name].results
        }
        options = {"accumulate": True} if accumulate else {}
        expected = bound_anew(name, others, out={k: alike(a) for k, a in out.items()}, **options)
        compute(BACKEND, name, arrays, out={k: alike(a) for k, a in out.items()}, **options)
        noted.clear()
        found = compute(BACKEND, name, others, out=out, **options)
        assert all(same_bits(found[one], expected[one]) for one in out)
        assert set(noted) == {"found"}


def shape_of(result: str, arrays: Any) -> tuple[int, ...]:
    return arrays["y" if result == "y" else "dy" if result == "dz" else result[1:]].shape


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrt", [("x",), ("w",), ("b", "x"), ("w", "b"), ("b",)])
def test_what_is_not_wanted(noted, monkeypatch, wrt, way):
    set_way(monkeypatch, way)
    arrays, others = (layer_arrays(FLAT, "float32", seed) for seed in (0, 5))
    expect_found(noted, "dense_sigmoid_backward", arrays, others, wrt=wrt)
    if "b" not in wrt:
        expect_found(noted, "matmul_backward", arrays, others, wrt=wrt)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_some_buffers(noted, monkeypatch, accumulate, dtype, way):
    """Given in any combination, of float32 beside 16 bits too."""
    set_way(monkeypatch, way)
    arrays, others = (layer_arrays(PACKED[dtype], dtype, seed) for seed in (0, 5))
    for given in (("dx",), ("db",), ("dw", "db"), ("dx", "dw", "db")):
        out = {
            one: random_array(shape_of(one, arrays), dtype if one == "dx" else "float32", 9)
            for one in given
        }
        options = {"accumulate": True} if accumulate else {}
        expect_found(noted, "dense_sigmoid_backward", arrays, others, out=out, **options)


def test_dw_in_the_order_of_w(noted):
    arrays, others = (
        {k: np.asfortranarray(a) for k, a in layer_arrays(FLAT, "float32", seed).items()}
        for seed in (0, 5)
    )
    expect_found(noted, "matmul_backward", arrays, others)
    dw = gpugrad.matmul_backward(*(BACKEND.array(arrays[k]) for k in ("dy", "x", "w"))).dw
    assert dw.flags.f_contiguous
    assert not dw.flags.c_contiguous


# ---- what must not be taken for a repetition


def brought(*names: str, layer: Layer = FLAT, dtype: str = "float32", seed: int = 0) -> list[Any]:
    arrays = layer_arrays(layer, dtype, seed)
    return [BACKEND.array(arrays[one]) for one in names]


def host(array: Any) -> np.ndarray:
    return BACKEND.numpy(array)


@pytest.fixture
def operands(noted: list[str]) -> list[Any]:
    """Operands of dense_sigmoid_backward, whose calls are remembered."""
    arrays = brought("dy", "y", "x", "w")
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*arrays)
    assert noted[-1] == "found"
    noted.clear()
    return arrays


def test_results_are_new_arrays(noted, operands):
    first = gpugrad.dense_sigmoid_backward(*operands)
    kept = [host(one) for one in first]
    second = gpugrad.dense_sigmoid_backward(*brought("dy", "y", "x", "w", seed=5))
    assert len({one.data.ptr for one in (*first, *second)}) == 6
    assert all(same_bits(host(one), before) for one, before in zip(first, kept, strict=True))
    assert not any(
        same_bits(host(a), host(b)) for a, b in zip(first, second, strict=True) if a.size
    )


def test_other_arrays_are_checked(noted, operands):
    dy, y, x, w = operands
    gpugrad.dense_sigmoid_backward(dy, y, x, w)
    with pytest.raises(ShapeError, match="y has shape"):
        gpugrad.dense_sigmoid_backward(dy, y[:4], x, w)
    with pytest.raises(DTypeError, match="w has dtype"):
        gpugrad.dense_sigmoid_backward(dy, y, x, BACKEND.array(np.ones(w.shape)))
    with pytest.raises(DTypeError, match="w is a NumPy array"):
        gpugrad.dense_sigmoid_backward(dy, y, x, np.ones(w.shape, np.float32))
    with pytest.raises(DTypeError, match="y is None"):
        gpugrad.dense_sigmoid_backward(dy, None, x, w)
    with pytest.raises(DTypeError, match="dy is a float"):
        gpugrad.dense_sigmoid_backward(1.0, y, x, w)
    assert "found" in noted
    assert "bound" not in noted


def test_dtypes_of_one_size(noted):
    for dtype in ("float16", "bfloat16"):
        dy, y = brought("dy", "y", dtype=dtype)
        expected = bound_anew("sigmoid_backward", layer_arrays(FLAT, dtype))["dz"]
        for _ in range(2):
            assert same_bits(host(gpugrad.sigmoid_backward(dy, y)), expected)
        assert noted[-1] == "found"
    with pytest.raises(DTypeError, match="dy has dtype int16"):
        gpugrad.sigmoid_backward(dy.view(np.int16), y.view(np.int16))
    with pytest.raises(DTypeError, match="y has dtype float16"):
        gpugrad.sigmoid_backward(dy, y.view(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_strides_and_alignments_are_planned_anew(noted, dtype):
    operands = brought("dy", "y", "x", "w", dtype=dtype)
    gpugrad.dense_sigmoid_backward(*operands)
    dy, y, x, w = (host(one) for one in operands)
    expected = bound_anew("dense_sigmoid_backward", {"dy": dy, "y": y, "x": x, "w": w})
    for change in ("reversed", "element offset", "padded rows", "fortran"):
        noted.clear()
        changed = [BACKEND.array(LAYOUTS[change](one)) for one in (dy, y, x, w)]
        results = gpugrad.dense_sigmoid_backward(*changed)
        assert set(noted) == {"bound"}
        for one, name in zip(results, ("dx", "dw", "db"), strict=True):
            assert np.allclose(host(one), expected[name], rtol=1e-4, atol=1e-4)


def test_options_are_checked(operands):
    for options, error, says in [
        ({"device": "cpu"}, DeviceError, "device is 'cpu'"),
        ({"device": "moon"}, ArgumentError, "device is 'moon'"),
        ({"precision": "best"}, ArgumentError, "precision"),
        ({"wrt": ("x", "q")}, ArgumentError, "wrt names 'q'"),
        ({"wrt": ("x", [])}, DTypeError, "wrt"),
        ({"accumulate": True}, ArgumentError, "needs out"),
        ({"accumulate": 0}, DTypeError, "accumulate"),
        ({"accumulate": None}, DTypeError, "accumulate"),
        ({"out": operands}, ArgumentError, "out has 4 entries"),
        ({"out": operands[0]}, DTypeError, "expected a tuple"),
    ]:
        for _ in range(2):
            with pytest.raises(error, match=says):
                gpugrad.dense_sigmoid_backward(*operands, **options)
    names = iter(("x", "w"))
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is not None
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is None
    names = ["x"]
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dw is None


def test_a_single_buffer_is_no_tuple_of_one(noted):
    (z,) = brought("z")
    out = BACKEND.array(np.empty(z.shape, np.float32))
    for _ in range(2):
        assert gpugrad.sigmoid(z, out=out) is out
    with pytest.raises(DTypeError, match="out is a tuple"):
        gpugrad.sigmoid(z, out=(out,))


def test_the_variable_for_the_device_is_not_for_arrays_on_a_gpu(noted, operands, monkeypatch):
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    gpugrad.dense_sigmoid_backward(*operands)
    assert set(noted) == {"found"}
    assert host(gpugrad.sigmoid(operands[0])).shape == operands[0].shape


def test_results_of_earlier_calls_as_buffers(noted, operands):
    """Named tuples are tuples."""
    grads = gpugrad.dense_sigmoid_backward(*operands)
    for _ in range(2):
        again = gpugrad.dense_sigmoid_backward(*operands, out=grads)
        assert all(a is b for a, b in zip(again, grads, strict=True))
    assert noted[-1] == "found"


class Memory:
    """Zeros of which arrays are parts, 512 bytes aligned."""

    def __init__(self) -> None:
        self.all = cupy.zeros(4000, np.float32)

    def at(self, first: int, *shape: int) -> Any:
        return self.all[first : first + int(np.prod(shape))].reshape(shape)


@pytest.mark.parametrize("shift", [0, 3])
def test_overlaps_are_looked_for_in_every_call(noted, shift):
    """By as little as one element, on either side, also where the address looks alike."""
    memory = Memory()
    dy, y = memory.at(1000, 12, 5), memory.at(1100, 12, 5)
    for _ in range(2):
        gpugrad.sigmoid_backward(dy, y, out=memory.at(1200 + shift, 12, 5))
    assert noted[-1] == "found"
    noted.clear()
    for first, operand in ((1156 + shift, "y"), (1040 + shift, "dy"), (944 + shift, "dy")):
        out = memory.at(first, 12, 5)
        for _ in range(2):
            with pytest.raises(ArgumentError, match=f"out shares memory with {operand}"):
                gpugrad.sigmoid_backward(dy, y, out=out)
    gpugrad.sigmoid_backward(dy, y, out=memory.at(1160 + shift, 12, 5))  # right behind y
    assert noted == ["found"]


def test_buffers_that_overlap_each_other(noted):
    memory = Memory()
    dy, y = brought("dy", "y", layer=Layer((12,), 1, 4))
    apart = memory.at(0, 12, 4), memory.at(48, 4)
    for _ in range(2):
        gpugrad.sigmoid_bias_backward(dy, y, out=apart)
    assert noted[-1] == "found"
    for _ in range(2):
        with pytest.raises(ArgumentError, match="out's db shares memory with out's dz"):
            gpugrad.sigmoid_bias_backward(dy, y, out=(apart[0], memory.at(44, 4)))


def test_buffers_that_run_backwards(noted):
    """Their address is that of their last row, and what they overlap lies before it."""
    memory = Memory()
    dy, y = memory.at(1000, 12, 5), memory.at(1100, 12, 5)
    for _ in range(2):
        gpugrad.sigmoid_backward(dy, y, out=memory.at(1200, 12, 5)[::-1])
    assert noted[-1] == "found"
    for first in (1144, 1156):
        with pytest.raises(ArgumentError, match="out shares memory with y"):
            gpugrad.sigmoid_backward(dy, y, out=memory.at(first, 12, 5)[::-1])
    noted.clear()
    gpugrad.sigmoid_backward(dy, y, out=memory.at(1160, 12, 5)[::-1])
    assert noted == ["found"]


def test_in_place(noted):
    """A buffer that is an operand is a kind of its own: neither is taken for the other."""
    dy, y = brought("dy", "y")
    expected = host(gpugrad.sigmoid_backward(dy, y))
    for target in ("dy", "y", "new"):
        for _ in range(3):
            dy, y = brought("dy", "y")
            before = host(dy), host(y)
            out = {"dy": dy, "y": y, "new": BACKEND.array(np.empty(dy.shape, np.float32))}[target]
            assert gpugrad.sigmoid_backward(dy, y, out=out) is out
            assert same_bits(host(out), expected)
            assert target == "dy" or same_bits(host(dy), before[0])
            assert target == "y" or same_bits(host(y), before[1])
        assert noted[-1] == "found"


def test_an_operand_twice(noted):
    """What was the same memory in one call is not in the next."""
    dy, y = brought("dy", "y")
    twice = [host(gpugrad.sigmoid_backward(y, y)) for _ in range(2)]
    for _ in range(2):
        found = host(gpugrad.sigmoid_backward(dy, y))
        assert not same_bits(found, twice[0])
        assert same_bits(found, bound_anew("sigmoid_backward", layer_arrays(FLAT, "float32"))["dz"])
    again = gpugrad.sigmoid_backward(y, y)
    assert same_bits(host(again), twice[0])
    assert same_bits(twice[0], twice[1])


def test_empty_arrays(noted):
    for layer in (Layer((0,), 3, 4), Layer((4,), 0, 3), Layer((4,), 3, 0)):
        arrays = brought("dy", "y", "x", "w", layer=layer)
        for _ in range(2):
            grads = gpugrad.dense_sigmoid_backward(*arrays)
        assert noted[-1] == "found"
        expected = gpugrad.dense_sigmoid_backward(*map(host, arrays), device="cpu")
        assert all(np.allclose(host(a), b) for a, b in zip(grads, expected, strict=True))


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played: two devices")
def test_another_device(noted, operands):
    """Arrays are computed where they are, whatever device is current."""
    expected = gpugrad.dense_sigmoid_backward(*operands)
    with cupy.cuda.Device(1):
        there = [cupy.asarray(host(one)) for one in operands]
        grads = gpugrad.dense_sigmoid_backward(*operands)
        assert cupy.cuda.runtime.getDevice() == 1
    assert set(noted) == {"found"}
    others = gpugrad.dense_sigmoid_backward(*there)
    assert noted[-1] == "bound"
    for one, other, exact in zip(grads, others, expected, strict=True):
        assert (one.device.id, other.device.id) == (0, 1)
        assert same_bits(host(one), host(exact))
        assert same_bits(host(other), host(exact))


def test_arrays_of_several_devices(noted, operands):
    dy, y, x, w = operands
    there = cupy.cuda.UnownedMemory(w.data.ptr, w.nbytes, w, 1)
    other = cupy.ndarray(w.shape, w.dtype, cupy.cuda.MemoryPointer(there, 0))
    for _ in range(2):
        with pytest.raises(DeviceError, match="w is on device gpu:1, expected gpu:0"):
            gpugrad.dense_sigmoid_backward(dy, y, x, other)


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")
def test_the_driver_is_not_asked_for_others_arrays(noted):
    """A forked process with a PyTorch tensor on the CPU must not start CUDA."""
    before = driver.calls()
    with pytest.raises(DTypeError, match="z is a list"):
        gpugrad.sigmoid([1.0])
    assert gpugrad.sigmoid(np.zeros(3), device="cpu").shape == (3,)
    assert driver.calls() == before


def test_a_subclass_is_bound_anew(noted, operands):
    class Array(cupy.ndarray):
        pass

    dy, *others = operands
    gpugrad.dense_sigmoid_backward(dy.view(Array), *others)
    assert set(noted) == {"bound"}


def test_memory_that_is_not_aligned(noted, operands):
    """Of an allocator that is not CuPy's own: results and workspace are aligned nevertheless."""
    expected = [host(one) for one in gpugrad.dense_sigmoid_backward(*operands)]
    allocate = cupy.cuda.get_allocator()
    with cupy.cuda.using_allocator(lambda size: allocate(size + 4) + 4):
        found = gpugrad.dense_sigmoid_backward(*operands)
    assert all(one.data.ptr % 16 == 0 for one in found)
    for one, before in zip(found, expected, strict=True):
        assert same_bits(host(one), before)


def test_a_kernel_that_does_not_compile_is_asked_for_again(noted, monkeypatch):
    operands = brought("dy", "y")

    def broken(*args: Any) -> Any:
        raise KernelCompileError("it does not", log="", source="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy_runtime, "kernel", broken)
        for _ in range(3):
            with pytest.raises(KernelCompileError):
                gpugrad.sigmoid_backward(*operands)
    assert len(calls.cache) == 0
    noted.clear()
    for _ in range(2):
        gpugrad.sigmoid_backward(*operands)
    assert noted == ["bound", "found"]


def test_a_launch_that_fails(noted, operands, monkeypatch):
    """The error says that buffers are in doubt, and the next call is right."""
    grads = gpugrad.dense_sigmoid_backward(*operands)
    expected = [host(one) for one in grads]
    gpugrad.dense_sigmoid_backward(*operands, out=grads)
    gpugrad.dense_sigmoid_backward(*operands, wrt=("x",))

    def fail(*_: int) -> None:
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy.cuda.driver, "launchKernel", fail)
        with pytest.raises(RuntimeError) as caught:
            gpugrad.dense_sigmoid_backward(*operands, out=grads)
        said = ["dense_sigmoid_backward: out may have been written in part"]
        assert caught.value.__notes__ == said
        with pytest.raises(RuntimeError) as caught:
            gpugrad.dense_sigmoid_backward(*operands, wrt=("x",))
        assert not hasattr(caught.value, "__notes__")
    found = gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert noted[-1] == "found"
    assert all(same_bits(host(one), before) for one, before in zip(found, expected, strict=True))


# ---- streams, graphs, memory


class Allocations(cupy.cuda.MemoryHook):
    """The bytes that are asked of CuPy's pool."""

    name = "allocations"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def malloc_preprocess(self, **options: Any) -> None:
        self.sizes.append(options["size"])


def split_operands(noted: list[str]) -> list[Any]:
    """Operands of calls that need a workspace, and are remembered."""
    arrays = brought("dy", "y", "x", "w", layer=SPLIT)
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*arrays)
    assert noted[-1] == "found"
    return arrays


def test_launches_go_to_the_current_stream(noted, monkeypatch):
    operands = split_operands(noted)
    launch, used = cupy.cuda.driver.launchKernel, []
    monkeypatch.setattr(
        cupy.cuda.driver, "launchKernel", lambda *args: (used.append(args[8]), launch(*args))
    )
    for stream in (cupy.cuda.Stream(), cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        stream.wait_event(cupy.cuda.get_current_stream().record())
        used.clear()
        with stream:
            gpugrad.dense_sigmoid_backward(*operands)
        stream.synchronize()
        assert used
        assert set(used) == {stream.ptr}


def test_a_call_allocates_its_results_and_one_workspace(noted):
    operands = split_operands(noted)
    with Allocations() as asked:
        grads = gpugrad.dense_sigmoid_backward(*operands)
    *results, workspace = asked.sizes
    assert results == [one.nbytes for one in grads]
    assert workspace % WORKSPACE_ALIGNMENT == 0
    gpugrad.dense_sigmoid_backward(*operands, out=grads)
    with Allocations() as asked:
        gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert asked.sizes == [workspace]
    gpugrad.sigmoid_backward(*operands[:2], out=operands[0])
    with Allocations() as asked:
        gpugrad.sigmoid_backward(*operands[:2], out=operands[0])
    assert asked.sizes == []


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")
def test_a_repeated_call_waits_for_nothing(noted):
    """It launches, and asks what may differ: no synchronization, no copy, no memory from CUDA."""
    operands = split_operands(noted)
    before = driver.calls()
    gpugrad.dense_sigmoid_backward(*operands)
    made = set(driver.calls() - before)
    assert "cuLaunchKernel" in made
    assert made <= {"cuLaunchKernel", "getDevice", "streamIsCapturing"}


def test_a_workspace_is_given_back(noted):
    operands = split_operands(noted)
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    grads = gpugrad.dense_sigmoid_backward(*operands)
    rounded = [-(-one.nbytes // WORKSPACE_ALIGNMENT) * WORKSPACE_ALIGNMENT for one in grads]
    assert pool.used_bytes() == before + sum(rounded)
    del grads
    assert pool.used_bytes() == before


def kept_by_graphs() -> list[Any]:
    return [one for of in memory.of_graphs.values() for _, one in of]


@contextmanager
def capturing(stream: Any) -> Iterator[None]:
    """Capture what is launched on a stream, with CuPy's mode."""
    stream.begin_capture()
    try:
        with stream:
            yield
    finally:
        stream.end_capture()


def test_workspaces_of_graphs_are_kept(noted):
    """Replays write there whenever they come: nobody else may, but what is captured with them."""
    operands = split_operands(noted)
    one, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))

    def call() -> int:
        for _ in range(2):
            gpugrad.dense_sigmoid_backward(*operands)
        return len(kept_by_graphs())

    with one:
        assert call() == 0
    with capturing(one):
        assert call() == 1
        assert call() == 1
    with capturing(one):
        assert call() == 2
        with other:
            assert call() == 2
        with capturing(other):
            assert call() == 3  # beside the other stream, and at the same time
        with ThreadPoolExecutor(1) as thread:

            def in_thread() -> int:
                with one:
                    return call()

            assert thread.submit(in_thread).result() == 4
    with one:
        assert call() == 4
    assert call() == 4
    assert len({kept.ptr for kept in kept_by_graphs()}) == 4


def test_a_capture_of_unknown_number_shares_nothing(noted, monkeypatch):
    operands = split_operands(noted)
    monkeypatch.setattr(memory, "capture_number", lambda stream: None)
    with capturing(cupy.cuda.Stream(non_blocking=True)):
        for count in (1, 2, 3):
            gpugrad.dense_sigmoid_backward(*operands)
            assert len({one.ptr for one in kept_by_graphs()}) == count


def test_a_larger_workspace_in_a_capture_is_another_one(noted):
    dy, y, x, w = split_operands(noted)
    for _ in range(2):
        gpugrad.matmul_backward(dy, x, w, wrt=("w",))
    with capturing(cupy.cuda.Stream(non_blocking=True)):
        for count in (1, 2, 2):
            gpugrad.matmul_backward(dy, x, w, wrt=("w",))
            if count == 2:
                gpugrad.dense_sigmoid_backward(dy, y, x, w)
            assert len(kept_by_graphs()) == count


def test_the_number_of_a_capture(noted):
    stream, numbers = cupy.cuda.Stream(non_blocking=True), []
    for _ in range(2):
        with capturing(stream):
            numbers.append(memory.capture_number(stream.ptr))
    assert len({*numbers} - {None}) == 2
    with cupy.cuda.Device():
        assert memory.capture_number(1 << 40) is None  # where the driver has no answer


def test_the_workspace_of_a_captured_first_call_is_kept(noted):
    operands = split_operands(noted)
    calls.cache.clear()
    with capturing(cupy.cuda.Stream(non_blocking=True)):
        for _ in range(2):
            gpugrad.dense_sigmoid_backward(*operands)
            assert len(kept_by_graphs()) == 1
    gpugrad.dense_sigmoid_backward(*operands)
    assert len(kept_by_graphs()) == 1


def test_memory_of_another_allocator_is_kept_for_a_graph(noted):
    """Of one that, unlike PyTorch's, does not know of graphs."""
    operands = split_operands(noted)
    allocate = cupy.cuda.get_allocator()

    def unowned(size: int) -> Any:
        memory = allocate(size)
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.ptr, size, memory, 0), 0)

    calls.cache.clear()
    with capturing(cupy.cuda.Stream(non_blocking=True)), cupy.cuda.using_allocator(unowned):
        gpugrad.dense_sigmoid_backward(*operands)
    assert len(kept_by_graphs()) == 1


def test_no_array_is_kept(noted):
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    operands = brought("dy", "y", "x", "w", layer=SPLIT)
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*operands)
        grads = gpugrad.dense_sigmoid_backward(*operands)
        gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert noted[-1] == "found"
    seen = [weakref.ref(one) for one in (*operands, *grads)]
    del operands, grads
    assert [one() for one in seen] == [None] * len(seen)
    assert pool.used_bytes() == before


# ---- threads, processes, bounds


def test_threads(noted, monkeypatch):
    """Each has parameters of its own, and the first call of each makes the context current."""
    names = ("dy", "y", "x", "w")
    gpugrad.dense_sigmoid_backward(*brought(*names))
    gpugrad.dense_sigmoid_backward(*brought(*names))
    expected = [
        bound_anew("dense_sigmoid_backward", layer_arrays(FLAT, "float32", seed))
        for seed in range(4)
    ]
    meeting = threading.Barrier(4)
    launch = cupy.cuda.driver.launchKernel

    def slow(*args: int) -> None:
        meeting.wait(20)  # all have filled their arguments in
        launch(*args)

    wrong: list[Any] = []

    def work(seed: int) -> None:
        operands = brought(*names, seed=seed)
        gpugrad.dense_sigmoid_backward(*operands)
        meeting.wait(20)
        if seed == 0:
            monkeypatch.setattr(cupy.cuda.driver, "launchKernel", slow)
        meeting.wait(20)
        for _ in range(3):
            grads = gpugrad.dense_sigmoid_backward(*operands)
            for name, one in zip(("dx", "dw", "db"), grads, strict=True):
                if not same_bits(host(one), expected[seed][name]):
                    wrong.append((seed, name))

    noted.clear()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert wrong == []
    assert set(noted) == {"found"}


def test_a_forked_process_forgets():
    code = """
import os
from gpugrad import calls
from gpugrad.gpu import bound
calls.cache.keep("key", "call")
bound.thread.devices.add(0)
child = os.fork()
if child == 0:
    calls.cache.keep("other", "call")
    os._exit(len(calls.cache) - 1 + len(bound.thread.devices))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(calls.cache) == 1
"""
    root = Path(gpugrad.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)


def test_the_cache_is_bounded_and_what_is_in_use_stays(monkeypatch):
    monkeypatch.setattr(calls, "MAX_CALLS", 10)
    cache = calls.Cache()
    for number in range(100):
        cache.keep(number, str(number))
        assert cache.get(0) == "0"
        assert cache.get(number) == str(number)
        assert len(cache) <= 10
    assert cache.get(50) is None
    cache.clear()
    assert len(cache) == 0


def test_the_cache_and_threads(monkeypatch):
    monkeypatch.setattr(calls, "MAX_CALLS", 20)
    cache = calls.Cache()
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 2000):
                cache.keep(number % 50, number % 50)
                assert cache.get((number * 7) % 50) in (None, (number * 7) % 50)
                assert len(cache) <= 20
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(13 * i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert failed == []


# ---- programs


def test_parameters_are_as_the_driver_reads_them(gpu, monkeypatch):
    """Addresses, scalars, and maps that are encoded for an address, once."""
    encoded: list[int] = []

    def encode(layout: Any, box: Any, swizzle: int, where: int) -> bytes:
        encoded.append(where)
        return where.to_bytes(8, "little") * 16

    monkeypatch.setattr(bound, "encode", encode)
    launches = Launches(132)
    x, y = (new_ref(index, (4, 8), np.dtype(np.uint16), "C") for index in range(2))
    part = launches.empty((4, 8), np.uint16)
    args = (np.int32(3), TensorMap(x, (1, 8), 128), y, TensorMap(part, (1, 8), 128), np.int64(-1))
    one = DMMA[0]
    launches.launch("stem", "function", ("MACRO",), one, (2, 3), args)
    program = launches.program()
    assert program.offsets == (0, 512)
    macros, shared = " ".join(("MACRO", *one.macros)), one.shared_bytes
    says = f"function [{macros}] grid 2×3, block 256, {shared} bytes of shared memory"
    assert str(program).startswith(says)
    made = BoundProgram(program, 2, [1])
    launched: list[Any] = []

    def note(*args: int) -> None:
        *head, stream, parameters, extra = args
        places = [ctypes.c_uint64.from_address(parameters + 8 * i).value for i in range(5)]
        read = [ctypes.c_uint64.from_address(at).value for at in places]
        maps = [ctypes.string_at(places[i], 128) for i in (1, 3)]
        assert all(places[i] % WIDE == 0 for i in (1, 3))
        launched.append((tuple(head), stream, read[0] & 0xFFFFFFFF, *read[2::2], *maps, extra))

    monkeypatch.setattr(cupy.cuda.driver, "launchKernel", note)
    for base in (1 << 40, 1 << 41, 1 << 41):
        launched.clear()
        made.run([base, base + 512, base + 1024], 9)
        maps = [one.to_bytes(8, "little") * 16 for one in (base, base + 1024)]
        head = (1, 2, 3, 1, 256, 1, 1, shared)
        assert launched == [(head, 9, 3, base + 512, 2**64 - 1, *maps, 0)]
    assert len(encoded) == 4
