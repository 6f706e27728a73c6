"""What the CPU's backend needs beside inputs and results: buffers, whatever the number of rows."""

import tracemalloc

import numpy as np
import pytest

import gpugrad
from gpugrad.cpu import scratch
from gpugrad.cpu.products import PARTS_BYTES
from gpugrad.operations import OPERATIONS
from tests.conftest import Backend
from tests.support.cases import dtype_of
from tests.support.operations import compute

MEBI = 1 << 20
BUFFERS = 10 * MEBI  # of a worker: some blocks of 2¹⁷ elements of up to 8 bytes


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "2")


def peak(name, n, k, m, dtype, **options):
    """Bytes that a call allocates, at most at a time, beside its results."""
    random = np.random.default_rng(0)
    shapes = {"x": (n, k), "w": (k, m), "b": (m,)}
    arrays = {
        one: random.random(shapes.get(one, (n, m)), np.float32).astype(dtype_of(dtype))
        for one in (*OPERATIONS[name].operands, "z")
    }
    out = compute(Backend(), name, arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_free", scratch._Free())  # what is kept is counted too
        return _peak(name, arrays, out, options)


def _peak(name, arrays, out, options):
    tracemalloc.start()
    try:
        compute(Backend(), name, arrays, out=out, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tall_layer_needs_buffers_alone(name, dtype):
    """A float32 copy of any of its matrices would take 38 MB, and dz as much."""
    assert peak(name, 150_000, 64, 64, dtype) < 2 * BUFFERS


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_twice_the_rows_need_no_more(dtype):
    """With as many rows as there are parts of dw to be summed, at most, or with more.

    Beside the parts each of two workers has its buffers, if it takes a task at all.
    """
    for n in (66_000, 132_000):
        most = peak("dense_sigmoid_backward", n, 256, 256, dtype)
        assert PARTS_BYTES // 2 < most < PARTS_BYTES // 2 + 2 * BUFFERS


def test_accumulating_in_place_needs_no_second_result():
    """It would take 16 MB."""
    most = peak("matmul_backward", 64, 2048, 2048, "float32", accumulate=True)
    assert most < 2 * BUFFERS - 6 * MEBI


def test_sums_of_very_wide_rows():
    """A part of the sum for each of 64 runs of blocks would take 256 MB."""
    dy = np.broadcast_to(np.float32(1), (300, 500_000))
    out = np.empty(500_000, np.float32)
    tracemalloc.start()
    try:
        gpugrad.bias_backward(dy, out=out, device="cpu")
        assert tracemalloc.get_traced_memory()[1] < PARTS_BYTES + 2 * BUFFERS
    finally:
        tracemalloc.stop()
    assert (out == 300).all()


def test_no_rows_need_nothing():
    x, w = np.empty((0, 4000), np.float16), np.empty((4000, 4000), np.float16)
    y = np.empty((0, 4000), np.float16)
    tracemalloc.start()
    try:
        grads = gpugrad.dense_sigmoid_backward(y, y, x, w, wrt=("x", "b"), device="cpu")
        assert tracemalloc.get_traced_memory()[1] < MEBI
    finally:
        tracemalloc.stop()
    assert not grads.db.any()
