"""Repeated calls on CuPy arrays: the same bits as the ordinary way, whatever changes in between."""

import ast
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cupy
import numpy as np
import pytest

import gpugrad
from bench import no_driver
from gpugrad import _arrays, _repeats, gradients, layers
from gpugrad._recipes import Recipes
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, KernelCompileError, ShapeError
from gpugrad.gpu import captures, replay
from gpugrad.gpu.frame import WIDE, Frame
from gpugrad.gpu.recording import ByAddress, Recorder
from tests import algorithms, cupy_on_host
from tests.cases import (
    DTYPES,
    LAYOUTS,
    PACKED,
    WRITABLE_LAYOUTS,
    Layer,
    layer_arrays,
    random_array,
)
from tests.conftest import needs_compiler
from tests.cupy_on_host import HostCupy, HostDriver
from tests.operations import OPERATIONS, compute, same_bits

BACKEND = HostCupy()
FLAT, NESTED, SPLIT = Layer((37,), 19, 35), Layer((3, 2, 5), 6, 7), Layer((600,), 9, 5)
WAYS = {
    "multiply-adds": algorithms.products_by(algorithms.by_multiply_adds),
    "tensor-cores": algorithms.products_by(algorithms.on_tensor_cores),
    "one-launch": algorithms.products_by(algorithms.in_one_launch, one_launch=True),
}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostDriver]:
    """CuPy on the host, with what CuPy would copy by its own kernels copied by NumPy."""
    write = lambda self, key, value: cupy_on_host.on_host(self).__setitem__(  # noqa: E731
        key, cupy_on_host.on_host(value)
    )
    needs_compiler()
    monkeypatch.setattr(cupy.ndarray, "__setitem__", write, raising=False)
    for module in (_arrays, gradients, layers):
        monkeypatch.setattr(module, "as_rows", cupy_on_host.as_rows)
    with no_driver.stand_ins(HostDriver()) as found:
        assert isinstance(found, HostDriver)
        yield found


def set_way(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(import_module("gpugrad.plan"), name, value)


def ordinary(name: str, arrays: Any, **options: Any) -> dict[str, Any]:
    """Compute without any recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_repeats, "find_on_gpu", lambda *_: (None, None))
        return compute(BACKEND, name, arrays, **options)


def expect_repeated(
    driver: HostDriver,
    name: str,
    arrays: Any,
    others: Any,
    *,
    out: Any = None,
    repeated: bool = True,
    **options: Any,
) -> None:
    """Assert that a call on others is a repetition of one on arrays, with the bits of its own."""
    copies: list[Any] = [out and {k: alike(one) for k, one in out.items()} for _ in range(3)]
    expected = ordinary(name, others, out=copies[0], **options)
    compute(BACKEND, name, arrays, out=copies[1], **options)
    driver.noted.clear()
    found = compute(BACKEND, name, others, out=copies[2], **options)
    assert set(driver.noted) == {"repeated" if repeated else "ordinary"}
    for one, result in expected.items():
        assert (result is None) == (found[one] is None)
        assert result is None or same_bits(found[one], result), one
        assert result is None or found[one].strides == result.strides
        if out is not None and one in out:
            assert same_bits(np.ascontiguousarray(copies[2][one]), np.ascontiguousarray(result))


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


def repeats(way: str, name: str, dtype: str) -> bool:
    """Say whether calls on rows that are not aligned are launches alone.

    16-bit matrices are copied on their way to tensor cores, but where one launch does it all.
    """
    in_products = name in ("matmul_backward", "dense_sigmoid", "dense_sigmoid_backward")
    fused = way == "one-launch" and name == "dense_sigmoid_backward"
    return way == "multiply-adds" or not (in_products and dtype.endswith("float16")) or fused


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ["flat", "split", "packed"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_bits(driver, monkeypatch, name, layer, dtype, way):
    set_way(monkeypatch, way)
    extents = {"flat": FLAT, "split": SPLIT, "packed": PACKED[dtype]}[layer]
    for options in options_of(name):
        expect_repeated(
            driver,
            name,
            layer_arrays(extents, dtype),
            layer_arrays(extents, dtype, seed=5),
            repeated=layer == "packed" or repeats(way, name, dtype),
            **options,
        )


@pytest.mark.parametrize("way", ["multiply-adds", "tensor-cores"])
@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one != "byte offset"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts_of_operands(driver, monkeypatch, name, layout, way):
    set_way(monkeypatch, way)
    for options in options_of(name):
        one, other = (
            {k: LAYOUTS[layout](a) for k, a in layer_arrays(FLAT, "float32", seed).items()}
            for seed in (0, 5)
        )
        expect_repeated(driver, name, one, other, **options)


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one != "byte offset"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_leading_dimensions_of_any_strides(driver, name, layout):
    """Where rows cannot be viewed they are copied: such calls are not repeated, and right."""
    one, other = (
        {k: LAYOUTS[layout](a) for k, a in layer_arrays(NESTED, "float32", seed).items()}
        for seed in (0, 5)
    )
    expected = ordinary(name, other)
    compute(BACKEND, name, one)
    driver.noted.clear()
    found = compute(BACKEND, name, other)
    assert all(same_bits(found[k], expected[k]) for k in expected)
    with_gaps = layout in ("sliced", "middle columns")
    viewed = layout in ("padded rows", "element offset", "read-only")
    if with_gaps or viewed:  # of the others it depends on the operation
        assert set(driver.noted) == {"ordinary" if with_gaps else "repeated"}


@pytest.mark.parametrize("layout", [one for one in WRITABLE_LAYOUTS if one != "byte offset"])
@pytest.mark.parametrize("layer", [FLAT, NESTED], ids=["matrix", "leading dimensions"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_layouts_of_buffers(driver, name, layout, layer):
    """The caller's buffers are written, also where a copy has to be written first."""
    arrays, others = (layer_arrays(layer, "float32", seed) for seed in (0, 5))
    for accumulate in [False, True] if OPERATIONS[name].accumulates else [False]:
        out = {
            one: LAYOUTS[layout](random_array(shape_of(one, arrays), "float32", 9))
            for one in OPERATIONS[name].results
        }
        options = {"accumulate": True} if accumulate else {}
        expected = ordinary(name, others, out={k: alike(a) for k, a in out.items()}, **options)
        compute(BACKEND, name, arrays, out={k: alike(a) for k, a in out.items()}, **options)
        driver.noted.clear()
        found = compute(BACKEND, name, others, out=out, **options)
        assert all(same_bits(found[one], expected[one]) for one in out)
        assert all((out[one] == expected[one]).all() for one in out)
        if layer is FLAT:
            assert set(driver.noted) == {"repeated"}


def shape_of(result: str, arrays: Any) -> tuple[int, ...]:
    return arrays["y" if result == "y" else "dy" if result == "dz" else result[1:]].shape


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrt", [("x",), ("w",), ("b", "x"), ("w", "b"), ("b",)])
def test_what_is_not_wanted(driver, monkeypatch, wrt, way):
    set_way(monkeypatch, way)
    arrays, others = (layer_arrays(FLAT, "float32", seed) for seed in (0, 5))
    expect_repeated(driver, "dense_sigmoid_backward", arrays, others, wrt=wrt)
    if "b" not in wrt:
        expect_repeated(driver, "matmul_backward", arrays, others, wrt=wrt)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_some_buffers(driver, monkeypatch, accumulate, dtype, way):
    """Given in any combination, of float32 beside 16 bits too."""
    set_way(monkeypatch, way)
    arrays, others = (layer_arrays(PACKED[dtype], dtype, seed) for seed in (0, 5))
    for given in (("dx",), ("db",), ("dw", "db"), ("dx", "dw", "db")):
        out = {
            one: random_array(shape_of(one, arrays), dtype if one == "dx" else "float32", 9)
            for one in given
        }
        options = {"accumulate": True} if accumulate else {}
        expect_repeated(driver, "dense_sigmoid_backward", arrays, others, out=out, **options)


def test_dw_in_the_order_of_w(driver):
    arrays, others = (
        {k: np.asfortranarray(a) for k, a in layer_arrays(FLAT, "float32", seed).items()}
        for seed in (0, 5)
    )
    expect_repeated(driver, "matmul_backward", arrays, others)
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
def operands(driver: HostDriver) -> list[Any]:
    """Operands of dense_sigmoid_backward, whose calls are remembered."""
    arrays = brought("dy", "y", "x", "w")
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*arrays)
    assert driver.noted[-1] == "repeated"
    driver.noted.clear()
    return arrays


def test_results_are_new_arrays(driver, operands):
    first = gpugrad.dense_sigmoid_backward(*operands)
    kept = [host(one) for one in first]
    second = gpugrad.dense_sigmoid_backward(*brought("dy", "y", "x", "w", seed=5))
    assert len({one.data.ptr for one in (*first, *second)}) == 6
    assert all(same_bits(host(one), before) for one, before in zip(first, kept, strict=True))
    assert not any(
        same_bits(host(a), host(b)) for a, b in zip(first, second, strict=True) if a.size
    )


def test_other_arrays_are_checked(driver, operands):
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
    assert "repeated" in driver.noted
    assert "ordinary" not in driver.noted


def test_dtypes_of_one_size(driver):
    for dtype in ("float16", "bfloat16"):
        dy, y = brought("dy", "y", dtype=dtype)
        expected = ordinary("sigmoid_backward", layer_arrays(FLAT, dtype))["dz"]
        for _ in range(2):
            assert same_bits(host(gpugrad.sigmoid_backward(dy, y)), expected)
        assert driver.noted[-1] == "repeated"
    with pytest.raises(DTypeError, match="dy has dtype int16"):
        gpugrad.sigmoid_backward(dy.view(np.int16), y.view(np.int16))
    with pytest.raises(DTypeError, match="y has dtype float16"):
        gpugrad.sigmoid_backward(dy, y.view(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_strides_and_alignments_are_planned_anew(driver, dtype):
    operands = brought("dy", "y", "x", "w", dtype=dtype)
    gpugrad.dense_sigmoid_backward(*operands)
    dy, y, x, w = (host(one) for one in operands)
    expected = ordinary("dense_sigmoid_backward", {"dy": dy, "y": y, "x": x, "w": w})
    for change in ("reversed", "element offset", "padded rows", "fortran"):
        driver.noted.clear()
        changed = [BACKEND.array(LAYOUTS[change](one)) for one in (dy, y, x, w)]
        results = gpugrad.dense_sigmoid_backward(*changed)
        assert set(driver.noted) == {"ordinary"}
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


def test_a_single_buffer_is_no_tuple_of_one(driver):
    (z,) = brought("z")
    out = BACKEND.array(np.empty(z.shape, np.float32))
    for _ in range(2):
        assert gpugrad.sigmoid(z, out=out) is out
    with pytest.raises(DTypeError, match="out is a tuple"):
        gpugrad.sigmoid(z, out=(out,))


def test_the_variable_for_the_device_is_not_for_arrays_on_a_gpu(driver, operands, monkeypatch):
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    gpugrad.dense_sigmoid_backward(*operands)
    assert set(driver.noted) == {"repeated"}
    assert host(gpugrad.sigmoid(operands[0])).shape == operands[0].shape


def test_results_of_earlier_calls_as_buffers(driver, operands):
    """Named tuples are tuples."""
    grads = gpugrad.dense_sigmoid_backward(*operands)
    for _ in range(2):
        again = gpugrad.dense_sigmoid_backward(*operands, out=grads)
        assert all(a is b for a, b in zip(again, grads, strict=True))
    assert driver.noted[-1] == "repeated"


@pytest.mark.parametrize("shift", [0, 3])
def test_overlaps_are_looked_for_in_every_call(driver, shift):
    """By as little as one element, on either side, also where the address looks alike."""
    memory = np.zeros(4000, np.float32)

    def at(first: int) -> Any:
        return BACKEND.array(memory[first : first + 60].reshape(12, 5))

    dy, y = at(1000), at(1100)
    for _ in range(2):
        gpugrad.sigmoid_backward(dy, y, out=at(1200 + shift))
    assert driver.noted[-1] == "repeated"
    driver.noted.clear()
    for first, operand in ((1156 + shift, "y"), (1040 + shift, "dy"), (944 + shift, "dy")):
        out = at(first)
        for _ in range(2):
            with pytest.raises(ArgumentError, match=f"out shares memory with {operand}"):
                gpugrad.sigmoid_backward(dy, y, out=out)
    gpugrad.sigmoid_backward(dy, y, out=at(1160 + shift))  # right behind y
    assert driver.noted == ["repeated"]


def test_buffers_that_overlap_each_other(driver):
    memory = np.zeros(400, np.float32)
    dy, y = brought("dy", "y", layer=Layer((12,), 1, 4))
    apart = BACKEND.array(memory[:48].reshape(12, 4)), BACKEND.array(memory[48:52])
    for _ in range(2):
        gpugrad.sigmoid_bias_backward(dy, y, out=apart)
    assert driver.noted[-1] == "repeated"
    for _ in range(2):
        with pytest.raises(ArgumentError, match="out's db shares memory with out's dz"):
            gpugrad.sigmoid_bias_backward(dy, y, out=(apart[0], BACKEND.array(memory[44:48])))


def test_buffers_that_run_backwards(driver):
    """Their address is that of their last row, and what they overlap lies before it."""
    memory = np.zeros(4000, np.float32)

    def at(first: int) -> np.ndarray:
        return memory[first : first + 60].reshape(12, 5)

    dy, y = BACKEND.array(at(1000)), BACKEND.array(at(1100))
    for _ in range(2):
        gpugrad.sigmoid_backward(dy, y, out=BACKEND.array(at(1200)[::-1]))
    assert driver.noted[-1] == "repeated"
    for first in (1144, 1156):
        with pytest.raises(ArgumentError, match="out shares memory with y"):
            gpugrad.sigmoid_backward(dy, y, out=BACKEND.array(at(first)[::-1]))
    driver.noted.clear()
    gpugrad.sigmoid_backward(dy, y, out=BACKEND.array(at(1160)[::-1]))
    assert driver.noted == ["repeated"]


def test_in_place(driver):
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
        assert driver.noted[-1] == "repeated"


def test_an_operand_twice(driver):
    """What was the same memory in one call is not in the next."""
    dy, y = brought("dy", "y")
    twice = [host(gpugrad.sigmoid_backward(y, y)) for _ in range(2)]
    for _ in range(2):
        found = host(gpugrad.sigmoid_backward(dy, y))
        assert not same_bits(found, twice[0])
        assert same_bits(found, ordinary("sigmoid_backward", layer_arrays(FLAT, "float32"))["dz"])
    again = gpugrad.sigmoid_backward(y, y)
    assert same_bits(host(again), twice[0])
    assert same_bits(twice[0], twice[1])


def test_empty_arrays_are_not_repeated(driver):
    for layer in (Layer((0,), 3, 4), Layer((4,), 0, 3), Layer((4,), 3, 0)):
        arrays = brought("dy", "y", "x", "w", layer=layer)
        for _ in range(2):
            gpugrad.dense_sigmoid_backward(*arrays)
    assert "repeated" not in driver.noted


def test_another_device(driver, operands):
    """Arrays of a device that is not the current one go the ordinary way, and back again."""
    driver.device = 1
    gpugrad.dense_sigmoid_backward(*operands)
    assert set(driver.noted) == {"ordinary"}
    driver.device = 0
    driver.noted.clear()
    gpugrad.dense_sigmoid_backward(*operands)
    assert set(driver.noted) == {"repeated"}


def test_arrays_of_several_devices(driver, operands):
    dy, y, x, w = operands
    there = cupy.cuda.UnownedMemory(w.data.ptr, w.nbytes, w, 1)
    other = cupy.ndarray(w.shape, w.dtype, cupy.cuda.MemoryPointer(there, 0))
    for _ in range(2):
        with pytest.raises(DeviceError, match="w is on device gpu:1, expected gpu:0"):
            gpugrad.dense_sigmoid_backward(dy, y, x, other)


def test_the_driver_is_not_asked_for_others_arrays(driver):
    """A forked process with a PyTorch tensor on the CPU must not start CUDA."""
    del driver.device
    with pytest.raises(DTypeError, match="z is a list"):
        gpugrad.sigmoid([1.0])
    assert gpugrad.sigmoid(np.zeros(3), device="cpu").shape == (3,)


def test_a_subclass_goes_the_ordinary_way(driver, operands):
    class Array(cupy.ndarray):
        pass

    dy, *others = operands
    gpugrad.dense_sigmoid_backward(dy.view(Array), *others)
    assert set(driver.noted) == {"ordinary"}


def test_memory_that_is_not_aligned(driver, operands):
    """Of an allocator that is not CuPy's own: kernels that move packs are not for it."""
    expected = [host(one) for one in gpugrad.dense_sigmoid_backward(*operands)]
    driver.shift = 4
    driver.noted.clear()
    found = gpugrad.dense_sigmoid_backward(*operands)
    assert set(driver.noted) == {"ordinary"}
    assert all(one.data.ptr % 16 == 4 for one in found)
    for one, before in zip(found, expected, strict=True):
        assert np.allclose(host(one), before, rtol=1e-4, atol=1e-4)


def test_a_kernel_that_does_not_compile_is_asked_for_again(driver, monkeypatch):
    operands = brought("dy", "y")
    asked = driver.host.kernel

    def broken(*args: Any) -> Any:
        raise KernelCompileError("it does not", log="", source="")

    monkeypatch.setattr(driver.host, "kernel", broken)
    for _ in range(3):
        with pytest.raises(KernelCompileError):
            gpugrad.sigmoid_backward(*operands)
    assert len(_repeats.recipes) == 0
    monkeypatch.setattr(driver.host, "kernel", asked)
    for _ in range(2):
        gpugrad.sigmoid_backward(*operands)
    assert driver.noted == ["ordinary", "repeated"]


def test_a_launch_that_fails(driver, operands, monkeypatch):
    """The error says that buffers are in doubt, and the next call is right."""
    grads = gpugrad.dense_sigmoid_backward(*operands)
    expected = [host(one) for one in grads]
    gpugrad.dense_sigmoid_backward(*operands, out=grads)
    gpugrad.dense_sigmoid_backward(*operands, wrt=("x",))

    def fail(*_: int) -> None:
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "launch", fail)
        with pytest.raises(RuntimeError) as caught:
            gpugrad.dense_sigmoid_backward(*operands, out=grads)
        said = ["dense_sigmoid_backward: out may have been written in part"]
        assert caught.value.__notes__ == said
        with pytest.raises(RuntimeError) as caught:
            gpugrad.dense_sigmoid_backward(*operands, wrt=("x",))
        assert not hasattr(caught.value, "__notes__")
    found = gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert driver.noted[-1] == "repeated"
    assert all(same_bits(host(one), before) for one, before in zip(found, expected, strict=True))


# ---- streams, graphs, memory


def split_operands(driver: HostDriver) -> list[Any]:
    """Operands of calls that need a workspace, and are remembered."""
    arrays = brought("dy", "y", "x", "w", layer=SPLIT)
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*arrays)
    assert driver.noted[-1] == "repeated"
    driver.allocated.clear()
    driver.used.clear()
    return arrays


def test_launches_go_to_the_current_stream(driver):
    operands = split_operands(driver)
    for stream in (7, 0, 9):
        driver.stream = SimpleNamespace(ptr=stream)
        driver.used.clear()
        gpugrad.dense_sigmoid_backward(*operands)
        assert driver.used
        assert set(driver.used) == {stream}


def test_a_call_allocates_its_results_and_one_workspace(driver):
    operands = split_operands(driver)
    grads = gpugrad.dense_sigmoid_backward(*operands)
    *results, workspace = driver.allocated
    assert results == [one.nbytes for one in grads]
    assert workspace % no_driver.ALIGNMENT == 0
    driver.allocated.clear()
    for _ in range(3):
        gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert driver.allocated[-2:] == [workspace, workspace]
    gpugrad.sigmoid_backward(*operands[:2], out=operands[0])
    driver.allocated.clear()
    gpugrad.sigmoid_backward(*operands[:2], out=operands[0])
    assert driver.allocated == []


def test_a_workspace_is_given_back(driver):
    operands = split_operands(driver)
    driver.memory.clear()
    grads = gpugrad.dense_sigmoid_backward(*operands)
    assert [one() is not None for one in driver.memory] == [True, True, True, False]
    del grads
    assert all(one() is None for one in driver.memory)


def kept_by_graphs() -> list[Any]:
    return [memory for of in captures.of_graphs.values() for _, memory in of]


def test_workspaces_of_graphs_are_kept(driver):
    """Replays write there whenever they come: nobody else may, but what is captured with them."""
    operands = split_operands(driver)

    def call(stream: int, captured: dict[int, int]) -> int:
        driver.stream, driver.captured = SimpleNamespace(ptr=stream), captured
        for _ in range(2):
            gpugrad.dense_sigmoid_backward(*operands)
        return len(kept_by_graphs())

    assert call(7, {}) == 0
    assert call(7, {7: 1}) == 1
    assert call(7, {7: 1}) == 1
    assert call(7, {7: 2}) == 2
    assert call(8, {7: 2}) == 2
    assert call(8, {7: 2, 8: 2}) == 3  # beside the other stream, and at the same time
    assert call(7, {}) == 3
    assert call(0, {0: 3}) == 3  # CUDA refuses to capture this one, or to be asked
    with ThreadPoolExecutor(1) as thread:
        thread.submit(call, 7, {}).result()
        assert thread.submit(call, 7, {7: 2}).result() == 4
    assert len({one.ptr for one in kept_by_graphs()}) == 4


def test_a_capture_of_unknown_number_shares_nothing(driver):
    operands = split_operands(driver)
    driver.stream, driver.captured = SimpleNamespace(ptr=7), {7: None}
    for count in (1, 2, 3):
        gpugrad.dense_sigmoid_backward(*operands)
        assert len({one.ptr for one in kept_by_graphs()}) == count


def test_a_larger_workspace_in_a_capture_is_another_one(driver):
    dy, y, x, w = split_operands(driver)
    for _ in range(2):
        gpugrad.matmul_backward(dy, x, w, wrt=("w",))
    driver.stream, driver.captured = SimpleNamespace(ptr=7), {7: 1}
    for count in (1, 2, 2):
        gpugrad.matmul_backward(dy, x, w, wrt=("w",))
        if count == 2:
            gpugrad.dense_sigmoid_backward(dy, y, x, w)
        assert len(kept_by_graphs()) == count


def test_the_number_of_a_capture(monkeypatch):
    from cuda.bindings import driver

    told = (driver.CUresult.CUDA_SUCCESS, 1, driver.cuuint64_t(5), None, [], [], 0)
    monkeypatch.setattr(driver, "cuStreamGetCaptureInfo", lambda stream: (*told, int(stream)))
    assert captures._capture(7) == 5
    failed = (driver.CUresult.CUDA_ERROR_LOSSY_QUERY, None, None, None, None, None, None)
    monkeypatch.setattr(driver, "cuStreamGetCaptureInfo", lambda stream: failed)
    assert captures._capture(7) is None


def test_memory_of_a_captured_ordinary_call_is_kept(driver):
    operands = split_operands(driver)
    _repeats.forget()
    driver.stream, driver.captured = SimpleNamespace(ptr=7), {7: 1}
    for count in (2, 2):
        gpugrad.dense_sigmoid_backward(*operands)  # parts of dw and db; then a repetition
        assert len(kept_by_graphs()) >= count
    assert len({one.ptr for one in kept_by_graphs()}) == len(kept_by_graphs()) == 3
    driver.stream, driver.captured = SimpleNamespace(ptr=0), {0: 3}
    _repeats.forget()
    gpugrad.dense_sigmoid_backward(*operands)
    assert len(kept_by_graphs()) == 3


def test_no_array_is_kept(driver):
    arrays = layer_arrays(SPLIT, "float32")
    memory = {one: weakref.ref(array) for one, array in arrays.items()}
    operands = [BACKEND.array(arrays[one]) for one in ("dy", "y", "x", "w")]
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*operands)
        grads = gpugrad.dense_sigmoid_backward(*operands)
        gpugrad.dense_sigmoid_backward(*operands, out=grads)
    assert driver.noted[-1] == "repeated"
    del operands, grads, arrays
    assert [one for one, kept in memory.items() if kept() is not None] == []
    assert all(one() is None for one in driver.memory)


# ---- threads, processes, bounds


def test_threads(driver, monkeypatch):
    """Each has its own arguments, and its first call is the ordinary one."""
    names = ("dy", "y", "x", "w")
    gpugrad.dense_sigmoid_backward(*brought(*names))
    gpugrad.dense_sigmoid_backward(*brought(*names))
    expected = [
        ordinary("dense_sigmoid_backward", layer_arrays(FLAT, "float32", seed)) for seed in range(4)
    ]
    meeting = threading.Barrier(4)
    launch = driver.launch

    def slow(*args: int) -> None:
        meeting.wait(20)  # all have filled their arguments in
        launch(*args)

    noted: list[str] = []
    wrong: list[Any] = []

    def work(seed: int) -> None:
        operands = brought(*names, seed=seed)
        gpugrad.dense_sigmoid_backward(*operands)  # the ordinary way
        meeting.wait(20)
        if seed == 0:
            noted.extend(driver.noted)
            monkeypatch.setattr(driver, "launch", slow)
        meeting.wait(20)
        for _ in range(3):
            grads = gpugrad.dense_sigmoid_backward(*operands)
            for name, one in zip(("dx", "dw", "db"), grads, strict=True):
                if not same_bits(host(one), expected[seed][name]):
                    wrong.append((seed, name))

    driver.noted.clear()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert wrong == []
    assert noted
    assert set(noted) == {"ordinary"}
    assert set(driver.noted[len(noted) :]) == {"repeated"}


def test_a_forked_process_forgets():
    code = """
import os, signal
from gpugrad import _repeats
from gpugrad.gpu import replay
_repeats.recipes.keep("key", "recipe", 10)
replay._thread.devices.add(0)
_repeats.recipes._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(60)  # where it waits for a lock that nobody holds
    _repeats.recipes.keep("other", "recipe", 10)
    os._exit(len(_repeats.recipes) - 1 + len(replay._thread.devices))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(_repeats.recipes) == 1
"""
    root = Path(gpugrad.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)


def test_recipes_are_bounded_and_those_in_use_stay():
    recipes = Recipes()
    for number in range(100):
        recipes.keep(number, str(number), 10)
        assert recipes.get(0, 10) == "0"
        assert recipes.get(number, 10) == str(number)
        assert len(recipes) <= 10
    assert recipes.get(50, 10) is None
    recipes.clear()
    assert len(recipes) == 0


def test_recipes_by_threads():
    recipes = Recipes()
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 2000):
                recipes.keep(number % 50, number % 50, 20)
                assert recipes.get((number * 7) % 50, 20) in (None, (number * 7) % 50)
                assert len(recipes) <= 20
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(13 * i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert failed == []


# ---- recording


def test_nothing_in_the_gpu_package_writes_arrays_behind_a_recorders_back():
    """What is assigned to elements of an array goes through the runtime, which the recorder is."""
    folder = Path(replay.__file__).parent
    for path in sorted(folder.glob("*.py")):
        if path.stem == "cupy_runtime":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
            for one in targets:
                if isinstance(one, ast.Subscript):
                    parts = ast.walk(one.slice)
                    whole = any(
                        isinstance(part, ast.Constant) and part.value is ... for part in parts
                    )
                    assert not whole, f"{path.name}:{one.lineno}"
            name = getattr(getattr(node, "func", None), "attr", "")
            assert name not in ("fill", "set", "copy", "astype"), f"{path.name}: {name}"


class Map:
    """An argument with an address in it, as a tensor map is."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def encode(self, address: int) -> bytes:
        return address.to_bytes(8, "little") * 16


def test_arguments_with_an_address_in_them_are_made_anew(driver):
    noted: list[Any] = []
    runtime: Any = SimpleNamespace(
        kernel=lambda *_: lambda grid, block, args: noted.append(args), empty=cupy.empty
    )
    x, y = brought("dy", "y")
    recorder = Recorder(runtime)
    workspace = recorder.empty((100,), np.float32)
    args = (np.int32(3), Map(x), y, Map(workspace[8:]), np.int64(-1))
    recorder.kernel("stem", "function", ())((2, 3), (256,), args)
    template = recorder.template([y.data.ptr, x.data.ptr])
    assert template is not None
    assert template.workspace == 512
    assert (template.addresses, template.parts) == (3, (32,))
    (launch,) = template.launches
    assert [one[0] for one in launch.args if isinstance(one, ByAddress)] == [1, 2]
    frame = Frame(template, [(1, 2, 3, 1, 256, 1, 1, 0)])
    for base in (1 << 40, 1 << 41):
        frame.insert([base, base + 512, base + 1024])
        ((head, parameters),) = frame.calls
        read = [cupy_on_host.word(parameters, i) for i in range(5)]
        assert [read[0] & 0xFFFFFFFF, *read[1:]] == [3, base + 512, base, base + 1024, 2**64 - 1]
        assert cupy_on_host.bytes_at(parameters, 3, 128) == Map(x).encode(base + 1024)
        assert cupy_on_host.place(parameters, 3) % WIDE == 0
    assert head == (1, 2, 3, 1, 256, 1, 1, 0)


def test_memory_of_unknown_origin_is_not_repeated(driver):
    runtime: Any = SimpleNamespace(
        kernel=lambda *_: lambda grid, block, args: None, empty=cupy.empty
    )
    (x,) = brought("x")
    structure = np.zeros(1, [("map", "V128")])
    for argument in (cupy.empty(3), "text", x[1:], structure[0], structure, np.uint64(1 << 40), 3):
        recorder = Recorder(runtime)
        recorder.kernel("stem", "function", ())((1,), (1,), (argument,))
        assert recorder.template([x.data.ptr]) is None
    assert Recorder(runtime).template([x.data.ptr]) is None


def test_a_call_that_does_more_than_launch_is_not_repeated(driver):
    (x,) = brought("x")
    beside = {
        "write": lambda recorder: recorder.write(x, 0),
        "compact": lambda recorder: recorder.compact(x),
        "to_device": lambda recorder: recorder.to_device(host(x)),
        "to_host": lambda recorder: recorder.to_host(x, host(x)),
        "nothing": lambda recorder: recorder.facts(0),
    }
    for what, act in beside.items():
        runtime: Any = SimpleNamespace(
            kernel=lambda *_: lambda grid, block, args: None,
            **{one: lambda *_: None for one in (*beside, "facts")},
        )
        recorder = Recorder(runtime)
        act(recorder)
        recorder.kernel("stem", "function", ())((1,), (1,), (x,))
        assert (recorder.template([x.data.ptr]) is not None) == (what == "nothing")


FAKE_DRIVER = """
typedef unsigned int u;
typedef int (*Launched)(u, u, u, u, u, u, u, void *, void **, void **);
extern "C" int cuInit(u) { return 0; }
extern "C" int cuLaunchKernel(void *function, u gx, u gy, u gz, u bx, u by, u bz, u shared,
                              void *stream, void **parameters, void **extra) {
    return ((Launched)function)(gx, gy, gz, bx, by, bz, shared, stream, parameters, extra);
}
"""
THROUGH_CUPY = """
import ctypes, sys
from types import SimpleNamespace
ctypes.CDLL(sys.argv[1])  # CuPy finds the library that is loaded under the driver's name
from cupy.cuda import driver
from gpugrad.gpu.frame import Frame
from gpugrad.gpu.recording import Launch, Template

noted = []

@ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3)
def launched(*args):
    addresses = (ctypes.c_void_p * 3).from_address(args[8])
    values = [ctypes.c_uint64.from_address(addresses[i]).value for i in (0, 2)]
    noted.append((args[:8], args[9], values, ctypes.c_int32.from_address(addresses[1]).value))
    return 0

function = ctypes.cast(launched, ctypes.c_void_p).value
args = (1, (-5).to_bytes(4, "little", signed=True), 0)
template = Template((Launch(None, (1,), (1,), args),), 2, (), 0)
frame = Frame(template, [(function, 1, 2, 3, 4, 5, 6, 99)])
frame.insert([1 << 40, (1 << 47) + 8])
((head, parameters),) = frame.calls
driver.launchKernel(*head, 1 << 45, parameters, 0)
assert noted == [((1, 2, 3, 4, 5, 6, 99, 1 << 45), None, [(1 << 47) + 8, 1 << 40], -5)], noted
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a GPU or Linux, whose loader is fooled")
def test_what_the_driver_gets_from_cupy(tmp_path):
    """CuPy's own launch, with nothing of it replaced but the driver's function."""
    needs_compiler()
    library, source = tmp_path / "libcuda.so.1", tmp_path / "driver.cpp"
    source.write_text(FAKE_DRIVER, encoding="utf-8")
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    subprocess.run(["g++", *options], check=True, timeout=120)
    root = Path(gpugrad.__file__).parents[1]
    command = [sys.executable, "-c", THROUGH_CUPY, str(library)]
    done = subprocess.run(
        command, cwd=root, check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
