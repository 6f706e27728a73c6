"""Buffers that are kept from call to call."""

import threading

import numpy as np
import pytest

import gpugrad
from gpugrad.calls import cache
from gpugrad.cpu import activation, scratch
from gpugrad.cpu.scratch import KEPT_BYTES, take
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import same_bits

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(scratch, "_free", scratch._Free())


def test_a_name_keeps_its_memory_from_call_to_call():
    with take() as first:
        one = first.array("a", (3, 4), FLOAT32)
    with take() as second:
        assert second is first
        assert second.array("a", (3, 4), FLOAT32) is one
        assert np.shares_memory(second.array("a", (5,), FLOAT32), one)
        assert not np.shares_memory(second.array("b", (3, 4), FLOAT32), one)
        assert second.array("a", (3, 4), FLOAT64).dtype == FLOAT64


def test_a_larger_array_takes_the_place_of_a_smaller_one():
    with take() as buffers:
        small = buffers.array("a", (2, 3), FLOAT32)
        large = buffers.array("a", (20, 30), FLOAT32)
        again = buffers.array("a", (2, 3), FLOAT32)
        assert not np.shares_memory(small, large)
        assert np.shares_memory(again, large)
        assert again.flags.c_contiguous
        assert buffers.nbytes == 4 * 600


def test_views_of_many_shapes_do_not_pile_up():
    with take() as buffers:
        for rows in range(1, 1000):
            buffers.array("a", (rows, 7), FLOAT32)
        assert len(buffers._views) == 1


def test_each_user_and_each_thread_has_its_own():
    with take() as outer:
        with take() as inner:
            assert inner is not outer
        found = []
        thread = threading.Thread(target=lambda: found.append(take()))
        thread.start()
        thread.join()
    assert found[0] not in (outer, inner)


def test_what_an_error_left_is_not_used_again():
    """Another thread may still be writing there."""

    def fail(buffers):
        with buffers:
            raise KeyboardInterrupt

    buffers = take()
    with pytest.raises(KeyboardInterrupt):
        fail(buffers)
    assert take() is not buffers


def test_large_buffers_are_not_kept():
    with take() as buffers:
        buffers.array("a", (KEPT_BYTES // 4,), FLOAT32)
    assert take() is buffers
    with buffers:
        buffers.array("b", (1,), FLOAT32)
    assert take() is not buffers


def test_a_call_within_a_call(monkeypatch):
    """As of a signal's handler."""
    outer, inner = (layer_arrays(Layer((40,), 30, 20), "float32", seed) for seed in (1, 2))

    def call(arrays):
        return gpugrad.dense_sigmoid_backward(*(arrays[name] for name in ("dy", "y", "x", "w")))

    expected, within = call(outer), call(inner)
    gradient, depth = activation.gradient, []

    def gradient_before_a_call(*arguments):
        dz = gradient(*arguments)
        if not depth:
            depth.append(1)
            for one, other in zip(call(inner), within, strict=True):
                assert same_bits(one, other)
            depth.pop()
        return dz

    cache.clear()
    monkeypatch.setattr(activation, "gradient", gradient_before_a_call)
    for one, other in zip(call(outer), expected, strict=True):
        assert same_bits(one, other)
    cache.clear()


@pytest.mark.parametrize("layer", [Layer((64,), 64, 64), Layer((4096,), 64, 64)], ids=str)
def test_a_second_call_makes_no_buffer(layer, monkeypatch):
    arrays = layer_arrays(layer, "float32")
    operands = [arrays[name] for name in ("dy", "y", "x", "w")]
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "1")
    gpugrad.dense_sigmoid_backward(*operands)
    made = []
    monkeypatch.setattr(scratch.Scratch, "_new", lambda *arguments: made.append(arguments))
    gpugrad.dense_sigmoid_backward(*operands)
    assert not made


@pytest.mark.parametrize(("dtype", "least"), [("float32", 90.0), ("float64", 710.0)])
def test_logits_beyond_the_exponential_take_other_steps(dtype, least):
    """In the same array as others, and in place."""
    z = np.array([-least, -1, 0, 1, least, -np.inf, np.inf, np.nan], dtype)
    y = z.copy()
    with np.errstate(all="ignore"):
        activation.sigma(y, y, scratch.Scratch())
    smallest = np.finfo(dtype).smallest_subnormal
    assert abs(y[0] - np.exp(-least)) <= 2 * smallest
    # 8 roundings, 6 of them the exponential's; see docs/numerics.md
    np.testing.assert_allclose(y[1:5], 1 / (1 + np.exp(-z[1:5])), rtol=4 * np.finfo(dtype).eps)
    assert y[5:7].tolist() == [0, 1]
    assert np.isnan(y[7])
