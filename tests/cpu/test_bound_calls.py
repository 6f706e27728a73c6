"""Bound calls: what a signature decides is decided once, the rest in every call."""

import importlib
import threading
import warnings
import weakref

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad
from gpugrad.calls import cache
from gpugrad.cpu import activation, threads
from tests.support.cases import LAYOUTS, Layer, layer_arrays
from tests.support.operations import OPERATIONS, same_bits

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
    cache.clear()
    yield
    cache.clear()


def operands(layer, dtype="float32"):
    arrays = layer_arrays(layer, dtype)
    return [arrays[name] for name in ("dy", "y", "x", "w")]


def on(number, work):
    with ThreadpoolController().limit(limits=number, user_api="blas"):
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
    for number in THREADS:
        found = on(number, lambda: results(call, arrays))
        assert all(map(same_bits, found, first)), number
    assert len(cache) == 1


@pytest.mark.parametrize("side", [64, 128, 250])
@pytest.mark.parametrize("given", [("dy", "dy", "w"), ("dy", "x", "dy"), ("dy", "dy", "dy")])
def test_products_with_their_own_transpose_have_the_bits_of_the_first_call(given, side):
    """NumPy computes half of them, by other kernels."""
    arrays = layer_arrays(Layer((side,), side, side), "float32")
    operands = [arrays[name] for name in given]
    x, w = arrays["x"], arrays["w"]
    first = on(1, lambda: [*gpugrad.matmul_backward(*operands), gpugrad.dense_sigmoid(x, x)])
    for number in THREADS:
        cache.clear()
        gpugrad.matmul_backward(arrays["dy"], x, w)
        gpugrad.dense_sigmoid(x, w)
        found = on(
            number, lambda: [*gpugrad.matmul_backward(*operands), gpugrad.dense_sigmoid(x, x)]
        )
        assert all(map(same_bits, found, first))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["dy", "y", "x", "w", "b"])
@pytest.mark.parametrize("call", ["all", "add", "products", "forward"])
@pytest.mark.parametrize("layer", [Layer((16,), 64, 10), Layer((34,), 62, 151)], ids=str)
def test_other_layouts_of_the_same_shape(layer, call, layout, which):
    """Bits may depend on them, but not on calls before."""
    arrays = layer_arrays(layer, "float32")
    results(call, arrays)
    arrays[which] = LAYOUTS[layout](arrays[which])
    found = results(call, arrays)
    cache.clear()
    assert all(map(same_bits, found, results(call, arrays)))


def test_a_limit_of_threads_that_comes_later_is_kept(monkeypatch):
    """A bound call looks at it each time."""
    arrays = operands(Layer((16,), 256, 256))
    monkeypatch.setattr(threads, "_kernels_agree", lambda: True)
    monkeypatch.delenv("GPUGRAD_NUM_THREADS", raising=False)
    gradient, seen = activation.gradient, []

    def look(*given):
        seen.append(threads.libraries().all[0].get_num_threads())
        return gradient(*given)

    monkeypatch.setattr(activation, "gradient", look)
    first = on(1, lambda: gpugrad.dense_sigmoid_backward(*arrays))
    found = [on(2, lambda: gpugrad.dense_sigmoid_backward(*arrays))]
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "1")
    found.append(on(2, lambda: gpugrad.dense_sigmoid_backward(*arrays)))
    assert all(map(same_bits, one, first) for one in found)
    assert seen == [1, on(2, threads.libraries().threads), 1]


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


# ---- the interface


def bound(operation, arrays):
    """Bind a call; give what computes it, its operands and results that are not written yet."""
    inputs = {one: arrays[one] for one in operation.operands}
    if operation.takes_z:  # it is read in the place of y, or not at all
        names = ["dy", "y", "z", *operation.operands[2:]]
        inputs = {one: inputs.get(one) for one in names}
    shapes = {"dx": "x", "dw": "w", "db": "b", "dz": "dy", "y": "dy"}
    outputs = {one: np.full_like(arrays[shapes[one]], np.nan) for one in operation.results}
    module = importlib.import_module(f"gpugrad.cpu.{operation.name}")
    compute = module.bind(inputs, outputs, ())
    return compute, list(inputs.values()), list(outputs.values())


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_module_of_an_operation_has_one_public_function(operation):
    module = importlib.import_module(f"gpugrad.cpu.{operation.name}")
    own = [one for one, value in vars(module).items() if is_of(value, module)]
    assert [one for one in own if not one.startswith("_")] == ["bind"]


def is_of(value, module):
    return getattr(value, "__module__", None) == module.__name__


@pytest.mark.parametrize("layer", [Layer((16,), 64, 10), Layer((4000,), 60, 70)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_bound_call_computes_from_other_arrays_and_keeps_none(operation, layer):
    arrays = layer_arrays(layer, "float32", seed=1)
    compute, operands, results = bound(operation, layer_arrays(layer, "float32"))
    kept = [weakref.ref(one) for one in (*operands, *results) if one is not None]
    del operands, results
    assert not [one for one in kept if one() is not None]
    _, operands, results = bound(operation, arrays)
    compute(*operands, *results)
    expected = operation.function(*(arrays[one] for one in operation.operands), device="cpu")
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert all(map(same_bits, results, expected))


@pytest.mark.slow
@pytest.mark.parametrize("layer", [Layer((64,), 64, 64), Layer((3000,), 60, 70)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_several_threads_call_a_bound_call_at_once(operation, layer):
    compute, *_ = bound(operation, layer_arrays(layer, "float32"))
    every = [bound(operation, layer_arrays(layer, "float32", seed))[1:] for seed in range(4)]
    together, wrong = threading.Barrier(4, timeout=10), []
    alone = []
    for operands, results in every:
        compute(*operands, *results)
        alone.append([one.copy() for one in results])

    def call(operands, results, expected):
        together.wait()
        for _ in range(30):
            for one in results:
                one.fill(np.nan)
            compute(*operands, *results)
            if not all(map(same_bits, results, expected)):
                wrong.append(expected)

    callers = [
        threading.Thread(target=call, args=(*one, expected))
        for one, expected in zip(every, alone, strict=True)
    ]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong
