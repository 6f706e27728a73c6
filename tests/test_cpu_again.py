"""Layers that are computed again: by steps that are decided once, with the first call's bits."""

import os
import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad
from gpugrad import _environment, _repeats
from gpugrad.cpu import again, own_threads
from gpugrad.cpu.products import UNTHREADED, is_unthreaded
from tests.cases import LAYOUTS, Layer, layer_arrays
from tests.operations import OPERATIONS, same_bits

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


def is_of_steps(computed_by):
    return computed_by.__module__ == again.__name__


def on(threads, work):
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        return work()


def backward(arrays, **options):
    return gpugrad.dense_sigmoid_backward(
        *(arrays[one] for one in ("dy", "y", "x", "w")), **options
    )


def into(arrays, which, **options):
    """Write or add to buffers with some values in them, made anew for each call."""
    shapes = {"dx": arrays["x"].shape, "dw": arrays["w"].shape, "db": arrays["b"].shape}
    dtype = arrays["w"].dtype
    out = [np.full(shapes[one], 0.3, dtype) if one in which else None for one in shapes]
    return backward(arrays, out=out, **options)


CALLS = {
    "all": backward,
    "dw and db": lambda arrays: backward(arrays, wrt=("w", "b")),
    "dx": lambda arrays: backward(arrays, wrt=("x",)),
    "from z": lambda arrays: backward(arrays, z=arrays["z"]),
    "into buffers": lambda arrays: into(arrays, ("dx", "dw", "db")),
    "add": lambda arrays: into(arrays, ("dx", "dw", "db"), accumulate=True),
    "add to dw": lambda arrays: into(arrays, ("dw",), accumulate=True),
    "products": lambda arrays: gpugrad.matmul_backward(arrays["dy"], arrays["x"], arrays["w"]),
    "dw": lambda arrays: gpugrad.matmul_backward(
        arrays["dy"], arrays["x"], arrays["w"], wrt=("w",)
    ),
    "add products": lambda arrays: gpugrad.matmul_backward(
        arrays["dy"],
        arrays["x"],
        arrays["w"],
        out=(np.ones_like(arrays["x"]), None),
        accumulate=True,
    ),
    "forward": lambda arrays: gpugrad.dense_sigmoid(arrays["x"], arrays["w"], arrays["b"]),
    "forward without b": lambda arrays: gpugrad.dense_sigmoid(arrays["x"], arrays["w"]),
}


def results(call, arrays):
    found = CALLS[call](arrays)
    return [one for one in (found if isinstance(found, tuple) else (found,)) if one is not None]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_bits_are_those_of_the_first_call(layer, dtype, call):
    """On any number of the BLAS's threads, also where it has others than in the first call."""
    arrays = layer_arrays(layer, dtype)
    first = on(1, lambda: results(call, arrays))
    for threads in THREADS:
        found = on(threads, lambda: results(call, arrays))
        assert all(map(same_bits, found, first)), threads
    assert len(_repeats.recipes) == 1


@pytest.mark.parametrize("kernels", ["agree", "differ"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_they_are_for(kernels, dtype, call, monkeypatch):
    """Layers that the BLAS leaves to one thread, and with kernels that agree, of one block."""
    monkeypatch.setattr(own_threads, "_kernels_agree", lambda: kernels == "agree")
    for layer in LAYERS:
        n, k, m = int(np.prod(layer.lead)), layer.k, layer.m
        _repeats.forget()
        results(call, layer_arrays(layer, dtype))
        whole = own_threads.same_bits(n, k, m, np.dtype(dtype))
        unthreaded = is_unthreaded(n, k, m, 256 if whole else 96)
        sums_over = (k,) if call.startswith("forward") else (n, m)
        cut = any(one > 256 and one % 32 for one in sums_over)
        assert unthreaded <= (n * k * m <= UNTHREADED)
        assert is_of_steps(computed_by()) == (unthreaded or (whole and not cut))


@pytest.mark.parametrize("name", ["dense_sigmoid_backward", "matmul_backward", "dense_sigmoid"])
def test_16_bits_are_computed_as_before(name):
    arrays = layer_arrays(Layer((16,), 64, 10), "bfloat16")
    getattr(gpugrad, name)(*(arrays[one] for one in OPERATIONS[name].operands))
    assert not is_of_steps(computed_by())


def test_db_alone_is_computed_as_before():
    backward(layer_arrays(Layer((16,), 64, 10), "float32"), wrt=("b",))
    assert not is_of_steps(computed_by())


@pytest.mark.parametrize("side", [64, 128, 250])
@pytest.mark.parametrize("given", [("dy", "dy", "w"), ("dy", "x", "dy"), ("dy", "dy", "dy")])
def test_products_with_their_own_transpose_have_the_bits_of_the_first_call(given, side):
    """NumPy computes half of them, by other kernels."""
    arrays = layer_arrays(Layer((side,), side, side), "float32")
    operands = [arrays[name] for name in given]
    x, w = arrays["x"], arrays["w"]
    first = on(1, lambda: [*gpugrad.matmul_backward(*operands), gpugrad.dense_sigmoid(x, x)])
    for threads in THREADS:
        _repeats.forget()
        gpugrad.matmul_backward(arrays["dy"], x, w)
        gpugrad.dense_sigmoid(x, w)
        found = on(
            threads, lambda: [*gpugrad.matmul_backward(*operands), gpugrad.dense_sigmoid(x, x)]
        )
        assert all(map(same_bits, found, first))


@pytest.mark.parametrize("layer", [Layer((5000,), 64, 64), Layer((2048,), 512, 128)], ids=str)
def test_large_layers_are_computed_as_before(layer):
    gpugrad.dense_sigmoid_backward(*operands(layer))
    assert not is_of_steps(computed_by())


def test_a_w_by_columns_is_computed_as_before():
    *rest, w = operands(Layer((16,), 64, 10))
    gpugrad.dense_sigmoid_backward(*rest, np.asfortranarray(w))
    assert not is_of_steps(computed_by())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["dy", "y", "x", "w", "b"])
@pytest.mark.parametrize("call", ["all", "add", "products", "forward"])
def test_other_layouts_of_the_same_shape(call, layout, which):
    arrays = layer_arrays(Layer((16,), 64, 10), "float32")
    results(call, arrays)
    arrays[which] = LAYOUTS[layout](arrays[which])
    found = results(call, arrays)
    _repeats.forget()
    assert all(map(same_bits, found, results(call, arrays)))


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


@pytest.mark.parametrize("call", CALLS)
def test_infinities_warn_no_more_than_in_the_first_call(call):
    arrays = layer_arrays(Layer((16,), 64, 10), "float32")
    for name, value in (("dy", np.inf), ("x", np.nan), ("w", -np.inf), ("z", -1e30), ("b", 1e30)):
        arrays[name].flat[7] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = results(call, arrays)
        found = results(call, arrays)
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
