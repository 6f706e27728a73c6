"""Layers that are computed again: by steps that are decided once, with the first call's bits."""

import os
import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad
from gpugrad import _environment, _repeats
from gpugrad.cpu import again, own_threads
from gpugrad.cpu.dense_sigmoid_backward import dense_sigmoid_backward
from gpugrad.cpu.products import UNTHREADED, is_unthreaded
from tests.cases import LAYOUTS, Layer, layer_arrays
from tests.operations import same_bits

LAYERS = (
    *(Layer((1,), 64, 10), Layer((16,), 64, 10), Layer((64,), 64, 64), Layer((5, 3), 7, 1)),
    *(Layer((1,), 1, 1), Layer((90,), 96, 30), Layer((128,), 64, 10), Layer((129,), 33, 17)),
    *(
        Layer((16,), 256, 256),
        Layer((300,), 64, 64),
        Layer((320,), 64, 96),
        Layer((128,), 256, 256),
    ),
)
THREADS = (1, 2, 3)


@pytest.fixture(autouse=True)
def nothing_remembered():
    _repeats.forget()
    yield
    _repeats.forget()


def operands(layer, dtype="float32"):
    arrays = layer_arrays(layer, dtype)
    return [arrays[name] for name in ("dy", "y", "x", "w")]


def computed_by():
    (recipe,) = _repeats.recipes._young.values()
    return recipe.compute


def on(threads, work):
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        return work()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_bits_are_those_of_the_first_call(layer, dtype):
    """On any number of the BLAS's threads, also where it has others than in the first call."""
    arrays = operands(layer, dtype)
    first = on(1, lambda: gpugrad.dense_sigmoid_backward(*arrays))
    for threads in THREADS:
        found = on(threads, lambda: gpugrad.dense_sigmoid_backward(*arrays))
        assert all(map(same_bits, found, first)), threads


@pytest.mark.parametrize("kernels", ["agree", "differ"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_they_are_for(kernels, dtype, monkeypatch):
    """Layers that the BLAS leaves to one thread, and with kernels that agree, of one block."""
    monkeypatch.setattr(own_threads, "_kernels_agree", lambda: kernels == "agree")
    for layer in LAYERS:
        n, k, m = int(np.prod(layer.lead)), layer.k, layer.m
        _repeats.forget()
        gpugrad.dense_sigmoid_backward(*operands(layer, dtype))
        whole = own_threads.same_bits(n, k, m, np.dtype(dtype))
        unthreaded = is_unthreaded(n, k, m, 256 if whole else 96)
        cut = any(one > 256 and one % 32 for one in (n, m))
        assert unthreaded <= (n * k * m <= UNTHREADED)
        taken = computed_by() is not dense_sigmoid_backward
        assert taken == (unthreaded or (whole and not cut))


@pytest.mark.parametrize(
    "options", [{"wrt": ("x", "b")}, {"wrt": ("w",)}, {"z": "logits"}, {"dtype": "bfloat16"}]
)
def test_what_they_are_not_for(options):
    """One result less, logits, 16 bits; a w by columns; large layers."""
    options = dict(options)
    arrays = operands(Layer((16,), 64, 10), options.pop("dtype", "float32"))
    if options.get("z") == "logits":
        options["z"] = arrays[1]
    gpugrad.dense_sigmoid_backward(*arrays, **options)
    assert computed_by() is dense_sigmoid_backward


@pytest.mark.parametrize("layer", [Layer((5000,), 64, 64), Layer((2048,), 512, 128)], ids=str)
def test_large_layers_are_computed_as_before(layer):
    gpugrad.dense_sigmoid_backward(*operands(layer))
    assert computed_by() is dense_sigmoid_backward


def test_a_w_by_columns_is_computed_as_before():
    *rest, w = operands(Layer((16,), 64, 10))
    gpugrad.dense_sigmoid_backward(*rest, np.asfortranarray(w))
    assert computed_by() is dense_sigmoid_backward


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [(0, 1), (2,), (3,), (0, 1, 2, 3)])
def test_other_layouts_of_the_same_shape(layout, which):
    arrays = operands(Layer((16,), 64, 10))
    gpugrad.dense_sigmoid_backward(*arrays)
    others = [LAYOUTS[layout](one) if i in which else one for i, one in enumerate(arrays)]
    again_ = gpugrad.dense_sigmoid_backward(*others)
    _repeats.forget()
    first = gpugrad.dense_sigmoid_backward(*others)
    assert all(map(same_bits, again_, first))


def test_a_limit_of_threads_that_comes_later_is_kept(monkeypatch):
    """The steps are for as many threads as the BLAS has."""
    arrays = operands(Layer((16,), 256, 256))
    first = gpugrad.dense_sigmoid_backward(*arrays)
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "1")
    assert not on(2, lambda: again.has_its_threads(np.dtype(np.float32), small=True))
    assert again.has_its_threads(np.dtype(np.float32), small=True) == (
        own_threads.blas.libraries().threads() == 1
    )
    found = gpugrad.dense_sigmoid_backward(*arrays)
    assert all(map(same_bits, found, first))


def test_infinities_warn_no_more_than_in_the_first_call():
    dy, y, x, w = operands(Layer((16,), 64, 10))
    dy[3, 4], x[5, 6], w[7, 8] = np.inf, np.nan, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = gpugrad.dense_sigmoid_backward(dy, y, x, w)
        found = gpugrad.dense_sigmoid_backward(dy, y, x, w)
    for one, other in zip(found, first, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- environment variables


def test_variables_are_looked_up_each_time(monkeypatch):
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    assert _environment.raw("GPUGRAD_DEVICE") is None
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    assert _environment.raw("GPUGRAD_DEVICE") in ("cpu", b"cpu")
    del os.environ["GPUGRAD_DEVICE"]
    assert _environment.raw("GPUGRAD_DEVICE") is None


def test_variables_of_another_mapping(monkeypatch):
    monkeypatch.setattr(os, "environ", {"GPUGRAD_DEVICE": "gpu"})
    assert _environment.raw("GPUGRAD_DEVICE") == "gpu"
    assert _environment.raw("GPUGRAD_NUM_THREADS") is None
