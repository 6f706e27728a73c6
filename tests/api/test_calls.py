"""Calls like one that went before: the same results, and the same errors."""

import numpy as np
import pytest

import gpugrad
from gpugrad.calls import cache
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from tests.conftest import Backend
from tests.support.cases import LAYOUTS, WRITABLE_LAYOUTS, Layer, layer_arrays
from tests.support.operations import OPERATIONS, compute, expect_right, same_bits

ACCUMULATING = [name for name, one in OPERATIONS.items() if one.accumulates]

LAYERS = [
    Layer((5,), 3, 4),
    Layer((2, 3), 4, 5),
    Layer((), 3, 2),
    Layer((0,), 3, 4),
    Layer((3, 1), 1, 1),
]


@pytest.fixture(autouse=True)
def nothing_remembered():
    cache.clear()
    yield
    cache.clear()


def remembered():
    return len(cache)


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
    with pytest.raises(DTypeError, match="accumulate"):
        gpugrad.bias_backward(operands[0], out=np.zeros(4, np.float32), accumulate=1)
    names = iter(("x", "w"))
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is not None
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=names).dx is None
    assert gpugrad.dense_sigmoid_backward(*operands, wrt=["x"]).dw is None
    with pytest.raises(DTypeError, match="wrt"):
        gpugrad.dense_sigmoid_backward(*operands, wrt=("x", []))
    assert remembered() == 1


# ---- with buffers of the caller's


def some_buffers(results):
    """Return results as buffers with other values in them: all, the first, the last, as a list."""
    filled = tuple(one + 1 for one in results)
    if len(filled) == 1:
        return [filled[0]]
    few = (*[None] * (len(filled) - 1), filled[-1])
    return [filled, (filled[0], *[None] * (len(filled) - 1)), few, list(filled)]


def as_tuple(several):
    return tuple(several) if isinstance(several, tuple | list) else (several,)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [*LAYERS, Layer((200, 2), 70, 65)], ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_second_call_writes_the_same_into_buffers(name, shape, dtype):
    arrays = layer_arrays(shape, dtype)
    operands = [arrays[one] for one in OPERATIONS[name].operands]
    function = OPERATIONS[name].function
    plain = as_tuple(function(*operands))
    for count, out in enumerate(some_buffers(plain)):
        for _ in range(2):
            found = as_tuple(function(*operands, out=out))
            assert remembered() == 2 + min(count, 2)  # a list is as good as a tuple
            assert all(map(same_bits, found, plain))
            for given, result in zip(as_tuple(out), found, strict=True):
                assert given is None or result is given
                assert given is not None or not any(np.shares_memory(result, o) for o in operands)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", ACCUMULATING)
def test_the_second_call_adds_the_same(name, dtype):
    arrays = layer_arrays(Layer((5, 2), 4, 3), dtype)
    operands = [arrays[one] for one in OPERATIONS[name].operands]
    function = OPERATIONS[name].function
    plain = as_tuple(function(*operands))
    for count, out in enumerate(some_buffers(plain)):
        before = copies(out)
        first = copies(function(*operands, out=out, accumulate=True))
        put_back(out, before)
        second = function(*operands, out=out, accumulate=True)
        assert remembered() == 2 + min(count, 2)
        assert all(map(same_bits, as_tuple(second), first))


def copies(out):
    return [None if one is None else one.copy() for one in as_tuple(out)]


def put_back(out, values):
    for one, value in zip(as_tuple(out), values, strict=True):
        if one is not None:
            one[...] = value


def test_to_add_is_another_kind_of_call():
    operands = layer()
    plain = gpugrad.dense_sigmoid_backward(*operands)
    out = tuple(map(np.zeros_like, plain))
    for times in (1, 2, 3):
        gpugrad.dense_sigmoid_backward(*operands, out=out, accumulate=True)
        np.testing.assert_allclose(out[2], times * plain.db, rtol=1e-6)
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(*operands, out=out)
        assert all(map(same_bits, out, plain))


def test_float32_sums_of_16_bits_again():
    dy, y, x, w = layer("bfloat16")
    out = (None, np.empty(w.shape, np.float32), np.empty(w.shape[1], np.float32))
    halves = gpugrad.dense_sigmoid_backward(dy, y, x, w)
    for _ in range(2):
        grads = gpugrad.dense_sigmoid_backward(dy, y, x, w, out=out)
        assert grads.dw is out[1]
        assert same_bits(grads.dw.astype(w.dtype), halves.dw)
        assert grads.dx.dtype == x.dtype
    assert remembered() == 2


def test_a_dw_by_columns_again():
    dy, y, x, w = layer()
    plain = gpugrad.dense_sigmoid_backward(dy, y, x, w)
    for out in (plain, tuple(map(np.asfortranarray, plain))):
        for _ in range(2):
            for buffer in out:
                buffer.fill(7)
            found = gpugrad.dense_sigmoid_backward(dy, y, x, w, out=out)
            gpugrad.dense_sigmoid_backward(dy, y, x, np.asfortranarray(w), out=out)
            assert all(map(same_bits, found, gpugrad.dense_sigmoid_backward(dy, y, x, w)))


def test_buffers_are_checked_in_every_call():
    dy, y, x, w = layer()
    out = tuple(gpugrad.dense_sigmoid_backward(dy, y, x, w))
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(dy, y, x, w, out=out)
    dx, dw, db = out
    memory = np.zeros(x.size + 1, np.float32)
    over = memory[1:].reshape(x.shape)

    def refused(error, match, *buffers, x=x):
        with pytest.raises(error, match=match):
            gpugrad.dense_sigmoid_backward(dy, y, x, w, out=buffers)

    refused(ArgumentError, "dx shares memory with x", x, dw, db)
    refused(ArgumentError, "dx shares memory with x", x[:], dw, db)
    refused(ArgumentError, "dx shares memory with x", over, dw, db, x=memory[:-1].reshape(x.shape))
    refused(ArgumentError, "db shares memory with out's dw", dx, dw, dw[0])
    refused(ShapeError, "dw", dx, np.empty((1, 1), np.float32), db)
    refused(DTypeError, "dw", dx, dw.astype(np.float64), db)
    refused(DTypeError, "list", dx, dw.tolist(), db)
    dx.flags.writeable = False
    refused(ArgumentError, "dx is read-only", dx, dw, db)
    gpugrad.dense_sigmoid_backward(dy, y, memory[:-1].reshape(x.shape), w, out=(None, dw, db))


def test_one_buffer_for_two_results_is_refused_again():
    dy, x, w = (np.ones((3, 3)) for _ in range(3))
    gpugrad.matmul_backward(dy, x, w, out=(np.empty((3, 3)), np.empty((3, 3))))
    both = np.empty((3, 3))
    for _ in range(2):
        with pytest.raises(ArgumentError, match="dw shares memory with out's dx"):
            gpugrad.matmul_backward(dy, x, w, out=(both, both))


@pytest.mark.parametrize("which", ["dy", "y"])
def test_in_place_again(which):
    dy, y, _, _ = layer()
    expected = gpugrad.sigmoid_backward(dy, y)
    for _ in range(3):
        arrays = {"dy": dy.copy(), "y": y.copy()}
        found = gpugrad.sigmoid_backward(**arrays, out=arrays[which])
        assert found is arrays[which]
        assert same_bits(found, expected)
    assert remembered() == 2
    both = dy.copy()
    expected = gpugrad.sigmoid_backward(both, both)
    assert same_bits(gpugrad.sigmoid_backward(both, both, out=both), expected)


@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
def test_other_strides_of_a_buffer(layout):
    arrays = layer_arrays(Layer((2, 3), 4, 5), "float32")
    plain = compute(Backend(), "dense_sigmoid_backward", arrays)
    for _ in range(2):
        compute(Backend(), "dense_sigmoid_backward", arrays, out=plain)
    out = {name: LAYOUTS[layout](one.copy()) for name, one in plain.items()}
    for _ in range(2):
        expect_right(Backend(), "dense_sigmoid_backward", arrays, out=out)
        expect_right(Backend(), "dense_sigmoid_backward", arrays, out=out, accumulate=True)


def test_a_dx_by_columns_of_more_than_two_dimensions():
    """Its rows are a copy, which is brought back after the call."""
    arrays = layer_arrays(Layer((2, 3), 4, 5), "float32")
    out = {"dx": np.zeros((2, 3, 4), np.float32, order="F")}
    for _ in range(3):
        out["dx"][...] = 0
        expect_right(Backend(), "dense_sigmoid_backward", arrays, out=out)
    assert remembered() == 1


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
    monkeypatch.setattr("gpugrad.dispatch.gpu_missing", lambda: "there is none (a test says so)")
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
    monkeypatch.setattr("gpugrad.calls.MAX_CALLS", 3)
    for n in range(1, 9):
        gpugrad.sigmoid(np.zeros(n))
        assert 1 <= remembered() <= 3
