"""Calls like one that went before: the same results, and the same errors."""

import numpy as np
import pytest

import gpugrad
from gpugrad import _repeats
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from tests.cases import LAYOUTS, Layer, layer_arrays
from tests.conftest import Backend
from tests.operations import OPERATIONS, compute, expect_right, same_bits

LAYERS = [
    Layer((5,), 3, 4),
    Layer((2, 3), 4, 5),
    Layer((), 3, 2),
    Layer((0,), 3, 4),
    Layer((3, 1), 1, 1),
]


@pytest.fixture(autouse=True)
def nothing_remembered():
    _repeats.forget()
    yield
    _repeats.forget()


def remembered():
    return len(_repeats.recipes)


def layer(dtype="float32"):
    arrays = layer_arrays(Layer((5,), 3, 4), dtype)
    return [arrays[name] for name in ("dy", "y", "x", "w")]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", LAYERS, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_second_call_gives_the_same_in_new_arrays(name, shape, dtype):
    arrays = layer_arrays(shape, dtype)
    kinds = [False, True] if OPERATIONS[name].takes_z else [False]
    for from_z in kinds:
        first = compute(Backend(), name, arrays, from_z=from_z)
        count = remembered()
        assert count == 1 + from_z
        second = compute(Backend(), name, arrays, from_z=from_z)
        assert remembered() == count
        for one in first:
            assert second[one].shape == first[one].shape
            assert second[one].dtype == first[one].dtype
            assert same_bits(first[one], second[one])
            assert not np.shares_memory(first[one], second[one])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_other_strides_of_the_same_shape(name, layout):
    arrays = layer_arrays(Layer((2, 3), 4, 5), "float32")
    compute(Backend(), name, arrays)
    expect_right(Backend(), name, {one: LAYOUTS[layout](array) for one, array in arrays.items()})


@pytest.mark.parametrize("wrt", [("x",), ("w",), ("b", "x"), ("w", "b"), ()])
def test_what_is_not_wanted_is_none_again(wrt):
    for _ in range(2):
        grads = gpugrad.dense_sigmoid_backward(*layer(), wrt=wrt)
        assert tuple(name for name in "xwb" if getattr(grads, f"d{name}") is not None) == tuple(
            name for name in "xwb" if name in wrt
        )


def test_a_bias_that_is_left_out():
    _, _, x, w = layer()
    for _ in range(2):
        without = gpugrad.dense_sigmoid(x, w)
        with_bias = gpugrad.dense_sigmoid(x, w, np.ones(4, np.float32))
        assert (with_bias > without).all()


def test_options_of_a_kind_are_not_taken_for_another():
    """0 equals False, and an iterator that has been used up is the same object."""
    operands = layer()
    gpugrad.dense_sigmoid_backward(*operands)
    with pytest.raises(DTypeError, match="accumulate"):
        gpugrad.dense_sigmoid_backward(*operands, accumulate=0)
    with pytest.raises(ArgumentError, match="needs out"):
        gpugrad.dense_sigmoid_backward(*operands, accumulate=True)
    names = iter(("x", "w"))
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is not None
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is None
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=["x"]).dw is None
    with pytest.raises(DTypeError, match="wrt"):
        gpugrad.dense_sigmoid_backward(*operands, wrt=("x", []))
    assert remembered() == 1


def test_buffers_are_checked_in_every_call():
    dy, y, x, w = layer()
    gpugrad.dense_sigmoid_backward(dy, y, x, w)
    with pytest.raises(ArgumentError, match="shares memory"):
        gpugrad.dense_sigmoid_backward(dy, y, x, w, out=(x, None, None))
    with pytest.raises(ShapeError, match="dw"):
        gpugrad.dense_sigmoid_backward(dy, y, x, w, out=(None, np.empty((1, 1), np.float32), None))


def test_other_arrays_are_checked():
    dy, y, x, w = layer()
    gpugrad.dense_sigmoid_backward(dy, y, x, w)
    with pytest.raises(ShapeError, match="y has shape"):
        gpugrad.dense_sigmoid_backward(dy, y[:4], x, w)
    with pytest.raises(DTypeError, match="w has dtype"):
        gpugrad.dense_sigmoid_backward(dy, y, x, w.astype(np.float64))
    with pytest.raises(DTypeError, match="native byte order"):
        gpugrad.dense_sigmoid_backward(*(one.astype(">f4") for one in (dy, y, x, w)))
    with pytest.raises(DTypeError, match="masked"):
        gpugrad.dense_sigmoid_backward(np.ma.masked_array(dy), y, x, w)
    with pytest.raises(DTypeError, match="list"):
        gpugrad.dense_sigmoid_backward(dy.tolist(), y, x, w)
    with pytest.raises(DTypeError, match="None"):
        gpugrad.dense_sigmoid_backward(dy, None, x, w)


def test_what_is_no_array_is_not_looked_into():
    class Odd:
        @property
        def shape(self):
            raise RuntimeError("has no shape")

    dy, y, x, _ = layer()
    with pytest.raises(DTypeError, match="Odd"):
        gpugrad.dense_sigmoid_backward(dy, y, x, Odd())


def test_the_device_is_asked_for_again(monkeypatch):
    monkeypatch.setattr("gpugrad._dispatch.gpu_missing", lambda: "there is none (a test says so)")
    operands = layer()
    gpugrad.dense_sigmoid_backward(*operands)
    with pytest.raises(DeviceError, match="device is 'gpu'"):
        gpugrad.dense_sigmoid_backward(*operands, device="gpu")
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    with pytest.raises(DeviceError, match="GPUGRAD_DEVICE is 'gpu'"):
        gpugrad.dense_sigmoid_backward(*operands)
    with pytest.raises(ArgumentError, match="precision"):
        gpugrad.dense_sigmoid_backward(*operands, precision="most", device="cpu")


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(_repeats, "MOST", 3)
    for n in range(1, 9):
        gpugrad.sigmoid(np.zeros(n))
        assert 1 <= remembered() <= 3
