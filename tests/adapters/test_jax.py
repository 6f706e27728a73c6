"""gpugrad.jax: values, gradients and transformations, beside references and JAX's own."""

import doctest
import itertools
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs JAX")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import gpugrad  # noqa: E402
import gpugrad.jax as gj  # noqa: E402
from gpugrad.errors import ArgumentError, DTypeError, ShapeError  # noqa: E402
from gpugrad.operations import OPERATIONS  # noqa: E402
from gpugrad.testing import assert_within_bounds, reference, worst_element  # noqa: E402
from gpugrad.testing.bounds import FORMATS  # noqa: E402
from tests.conftest import ON_A_GPU  # noqa: E402
from tests.support.cases import (  # noqa: E402
    DTYPES,
    LAYERS,
    Layer,
    dtype_of,
    elementwise_arrays,
    layer_arrays,
    random_array,
)
from tests.support.operations import same_bits  # noqa: E402

LAYER = Layer((2, 3), 4, 5)
SMALL = [layer for layer in LAYERS if not layer.big]
FEW = (Layer((), 3, 2), Layer((2, 3, 5), 7, 11), Layer((3, 0, 2), 5, 7))
BIG = Layer((4, 100), 3, 600)
WAYS = [  # to compute an operation: from y, or from the logits
    (name, from_z)
    for name, operation in OPERATIONS.items()
    for from_z in ([False, True] if "y" in operation.operands else [False])
]
FUNCTIONS = {name: getattr(gj, name) for name in OPERATIONS}
CLOSE = 2.0**-43  # 1024 roundings of float64, of sums that have some dozens of terms


@pytest.fixture(autouse=True)
def on_the_cpu():
    """Where functions can be compiled, on a machine that has a GPU too."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def wide(dtype):
    """What lets JAX have arrays of a dtype."""
    return jax.enable_x64(dtype == "float64")


def on_jax(arrays):
    return {name: jnp.asarray(one) for name, one in arrays.items()}


def operands_of(op, arrays, *, from_z=False):
    """The arguments of a function; with `from_z` the logits in the place of y."""
    names = OPERATIONS[op].operands
    operands = {name: arrays[name] for name in names if not (from_z and name == "y")}
    if from_z:
        operands |= {"y": None, "z": arrays["z"]} if "y" in names else {}
    return operands


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def layer_of_jax(x, w, b):
    return jax.nn.sigmoid(x @ w + b)


def loss_of(layer):
    return lambda *operands: (layer(*operands) ** 2).sum()


def expect_close(ours, theirs):
    """Compare results in float64, beside the largest of each."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= CLOSE * (1 + np.abs(other).max())


@pytest.fixture
def calls(monkeypatch):
    """The calls of gpugrad's functions that are made: their names and options."""
    made = []

    def spy(name):
        function = getattr(gpugrad, name)

        def call(*args, **options):
            told = {one: options.get(one) for one in ("wrt", "precision", "out")}
            made.append((name, {one: given for one, given in told.items() if given is not None}))
            return function(*args, **options)

        monkeypatch.setattr(gpugrad, name, call)

    for name in OPERATIONS:
        spy(name)
    return made


# ---- values: those of gpugrad's own functions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "from_z"), WAYS)
def test_same_bits_as_gpugrad(op, from_z, dtype):
    """At once and compiled, in results of the same kind."""
    operands = operands_of(op, layer_arrays(LAYER, dtype), from_z=from_z)
    expected = getattr(gpugrad, op)(**operands)
    with wide(dtype):
        given = {name: None if one is None else jnp.asarray(one) for name, one in operands.items()}
        for results in (FUNCTIONS[op](**given), jax.jit(FUNCTIONS[op])(**given)):
            assert type(results) is type(expected) or isinstance(results, jax.Array)
            for result, array in zip(as_tuple(results), as_tuple(expected), strict=True):
                assert same_bits(np.asarray(result), array)


@pytest.mark.parametrize("wrt", [("x", "w", "b"), ("x",), ("w", "x")], ids=str)
def test_large_results_are_written_in_place(calls, wrt):
    arrays = layer_arrays(Layer((5000,), 64, 64), "float32")
    operands = operands_of("dense_sigmoid_backward", arrays)
    expected = gpugrad.dense_sigmoid_backward(**operands, wrt=wrt)
    assert expected.dx.nbytes > gj.lowering.IN_PLACE

    def function(operands):
        return gj.dense_sigmoid_backward(**operands, wrt=wrt)

    for some in (function, jax.jit(function)):
        for result, array in zip(some(on_jax(operands)), expected, strict=True):
            assert (result is array is None) or same_bits(np.asarray(result), array)
    gj.sigmoid(1.0)
    assert ["out" in options for _, options in calls] == [False, False, True, False]


def test_subnormal_numbers_survive_compilation():
    """XLA flushes them on its threads, and threads that are started there do for good."""
    program = """
import jax, numpy as np, gpugrad, gpugrad.jax
z = np.full((4000, 1000), -95, np.float32)
y = jax.jit(gpugrad.jax.sigmoid)(z)
dy = np.full_like(z, 2.0**-130)
print((np.asarray(y) > 0).all(), (gpugrad.sigmoid_backward(dy, np.full_like(z, 0.5)) > 0).all())
"""
    assert run(program) == "True True\n"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False], ids=["b", "no b"])
def test_layer_that_saves_its_logits(bias, dtype):
    """Its y is the sigmoid of z as it is kept: the accumulator's, rounded once."""
    arrays = layer_arrays(LAYER, dtype)
    x, w = arrays["x"], arrays["w"]
    b = arrays["b"] if bias else None
    exact = x.astype(np.float64) @ w.astype(np.float64) + (0 if b is None else b.astype(np.float64))
    y = gj.dense_sigmoid(x, w, b, save_logits=True)
    size = np.abs(x).astype(np.float64) @ np.abs(w) + (0 if b is None else np.abs(b))
    z_bound = 8 * FORMATS["float32"].roundoff * size
    z_bound += FORMATS[dtype].roundoff * (np.abs(exact) + z_bound)
    true = 1 / (1 + np.exp(-exact))
    bound = z_bound / 4 + FORMATS[dtype].roundoff * true + 12 * FORMATS["float32"].roundoff * true
    assert y.dtype == x.dtype
    assert (np.abs(np.asarray(y).astype(np.float64) - true) <= bound).all()


@pytest.mark.parametrize(("dtype", "large"), [("float16", 2048), ("bfloat16", 256)])
def test_logits_are_rounded_once(dtype, large):
    """The product, an odd number, would be rounded to an even one before b is added."""
    x, w, b = (np.array(one, dtype_of(dtype)) for one in ([[1, 1]], [[large], [1]], [-large]))
    y = gj.dense_sigmoid(x, w, b, save_logits=True)
    assert same_bits(np.asarray(y), gpugrad.sigmoid(np.ones((1, 1), dtype_of(dtype))))


def test_wrt_leaves_out():
    arrays = on_jax(layer_arrays(LAYER, "float32"))
    operands = operands_of("dense_sigmoid_backward", arrays)
    everything = gj.dense_sigmoid_backward(**operands)
    for wrt, names in [(("b", "x"), "xb"), (["w"], "w"), ("x", "x"), (iter("bx"), "xb"), ((), "")]:
        compiled = jax.jit(lambda some, names=names: gj.dense_sigmoid_backward(**some, wrt=names))
        for grads in (gj.dense_sigmoid_backward(**operands, wrt=wrt), compiled(operands)):
            assert isinstance(grads, gpugrad.DenseGrads)
            for name, one, other in zip("xwb", grads, everything, strict=True):
                assert (one is None) == (name not in names)
                assert one is None or np.allclose(one, other, rtol=1e-6, atol=1e-6)
    assert gj.matmul_backward(arrays["dy"], arrays["x"], arrays["w"], wrt=()) == (None, None)


def test_inputs_that_jax_takes():
    """NumPy arrays, numbers, and arrays of no dtype of their own."""
    z = np.linspace(-3, 3, 5, dtype=np.float32)
    expected = gpugrad.sigmoid(z)
    assert same_bits(np.asarray(gj.sigmoid(z)), expected)
    assert same_bits(np.asarray(gj.sigmoid(z[::-1])), expected[::-1].copy())
    for zero in (0.0, np.float32(0), jnp.asarray(0.0), dtype_of("bfloat16").type(0)):
        y = gj.sigmoid(zero)
        assert isinstance(y, jax.Array)
        assert (y.shape, y) == ((), 0.5)
        assert jax.grad(gj.sigmoid)(zero) == 0.25
    weak = jnp.full((3, 2), 1.0)
    assert weak.weak_type
    dx, dw, db = jax.grad(loss_of(gj.dense_sigmoid), (0, 1, 2))(weak, weak.T, weak[:, 0])
    assert (dx.shape, dw.shape, db.shape) == ((3, 2), (2, 3), (3,))
    assert gj.dense_sigmoid(np.ones(2, np.float32), jnp.ones((2, 3))).shape == (3,)
    with wide("float64"):
        assert gj.sigmoid(z.astype(np.float64)).dtype == np.float64
        assert gj.sigmoid(0.0).dtype == np.float64


def test_results_are_nobody_elses_memory():
    z = np.zeros((300, 1000), np.float32)
    for function in (gj.sigmoid, jax.jit(gj.sigmoid)):
        y = function(z)
        assert not np.shares_memory(np.asarray(y), z)
        z[...] = 1
        assert (np.asarray(y) == 0.5).all()
        z[...] = 0


def test_results_stay_where_jax_may_move_them():
    free = jnp.ones(3)
    placed = jax.device_put(free, jax.devices("cpu")[0])
    assert not gj.sigmoid(free).committed
    assert gj.sigmoid(placed).committed
    assert gj.sigmoid_backward(free, placed).committed


def test_examples():
    found = doctest.testmod(gj.functions)
    assert found.attempted > 15
    assert found.failed == 0


# ---- gradients, of the first and second order


ELEMENTWISE = {
    "sigmoid": ("z", lambda a: gj.sigmoid(a.z)),
    "sigmoid, logits": ("z", lambda a: gj.sigmoid(a.z, save_logits=True)),
    "sigmoid_backward": ("dy y", lambda a: gj.sigmoid_backward(a.dy, a.y)),
    "sigmoid_backward, logits": ("dy z", lambda a: gj.sigmoid_backward(a.dy, None, z=a.z)),
}
OF_LAYERS = {
    "dense_sigmoid": ("x w b", lambda a: gj.dense_sigmoid(a.x, a.w, a.b)),
    "dense_sigmoid, no bias": ("x w", lambda a: gj.dense_sigmoid(a.x, a.w)),
    "dense_sigmoid, w alone": ("w", lambda a: gj.dense_sigmoid(a.x, a.w, a.b)),
    "dense_sigmoid, logits": (
        "x w b",
        lambda a: gj.dense_sigmoid(a.x, a.w, a.b, save_logits=True),
    ),
    "dense_sigmoid, logits, no bias": (
        "x w",
        lambda a: gj.dense_sigmoid(a.x, a.w, save_logits=True),
    ),
    "matmul_backward": ("dy x w", lambda a: gj.matmul_backward(a.dy, a.x, a.w)),
    "matmul_backward, dx": ("dy x w", lambda a: gj.matmul_backward(a.dy, a.x, a.w, wrt=["x"]).dx),
    "matmul_backward, dw": ("dy x w", lambda a: gj.matmul_backward(a.dy, a.x, a.w, wrt="w").dw),
    "bias_backward": ("dy", lambda a: gj.bias_backward(a.dy)),
    "sigmoid_bias_backward": ("dy y", lambda a: gj.sigmoid_bias_backward(a.dy, a.y)),
    "sigmoid_bias_backward, logits": (
        "dy z",
        lambda a: gj.sigmoid_bias_backward(a.dy, None, z=a.z),
    ),
    "dense_sigmoid_backward": (
        "dy y x w",
        lambda a: gj.dense_sigmoid_backward(a.dy, a.y, a.x, a.w),
    ),
    "dense_sigmoid_backward, logits": (
        "dy z x w",
        lambda a: gj.dense_sigmoid_backward(a.dy, None, a.x, a.w, z=a.z),
    ),
    "dense_sigmoid_backward, x w alone": (
        "x w",
        lambda a: gj.dense_sigmoid_backward(a.dy, a.y, a.x, a.w),
    ),
    "dense_sigmoid_backward, dx db": (
        "dy y x w",
        lambda a: gj.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt="bx"),
    ),
    "dense_sigmoid_backward, dw": (
        "dy z x w",
        lambda a: gj.dense_sigmoid_backward(a.dy, None, a.x, a.w, z=a.z, wrt="w"),
    ),
}


def differences(case, arrays, order, *, modes=("rev",), compiled=False):
    """Compare the gradients of a case with central differences, in random directions.

    Steps of h = 1e-5 err by h² times third derivatives, and by 1e-11 of the values for rounding.
    """
    names, function = case
    names = names.split()
    with wide("float64"):
        given = on_jax(arrays)

        def of_those(*some):
            return function(SimpleNamespace(**given | dict(zip(names, some, strict=True))))

        of_those = jax.jit(of_those) if compiled else of_those
        some = [given[name] for name in names]
        check_grads(of_those, some, order, modes=modes, atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("layer", FEW, ids=str)
@pytest.mark.parametrize("name", OF_LAYERS)
def test_first_and_second_order(name, layer):
    """In reverse, and forward over reverse and the other way round where that is quick."""
    modes = ("rev",) if layer.lead else ("fwd", "rev")
    differences(OF_LAYERS[name], layer_arrays(layer, "float64"), 2, modes=modes)


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_first_order_of_any_layer(layer):
    differences(OF_LAYERS["dense_sigmoid"], layer_arrays(layer, "float64"), 1)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 5, 7)], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_first_and_second_order_of_any_shape(name, shape):
    differences(ELEMENTWISE[name], elementwise_arrays(shape, "float64"), 2)


@pytest.mark.parametrize("name", ["dense_sigmoid", "dense_sigmoid, logits"])
def test_further(name):
    """Third order, compiled; and the first of a layer whose results are written in place."""
    differences(OF_LAYERS[name], layer_arrays(Layer((2,), 3, 2), "float64"), 3, compiled=True)
    differences(OF_LAYERS[name], layer_arrays(BIG, "float64"), 1)


@pytest.mark.parametrize("name", [name for name in OF_LAYERS if name.endswith("_backward")])
def test_second_order_compiled(name):
    differences(OF_LAYERS[name], layer_arrays(LAYER, "float64"), 2, compiled=True)


@pytest.mark.parametrize("save_logits", [False, True])
def test_hessian_beside_jax(save_logits):
    arrays = layer_arrays(Layer((3,), 2, 4), "float64")
    with wide("float64"):
        x, w, b = (jnp.asarray(arrays[one]) for one in "xwb")

        def ours(*operands):
            return loss_of(lambda *some: gj.dense_sigmoid(*some, save_logits=save_logits))(
                *operands
            )

        every = (0, 1, 2)
        theirs = jax.hessian(loss_of(layer_of_jax), every)(x, w, b)
        for outer, inner in itertools.product((jax.jacfwd, jax.jacrev), repeat=2):
            mine = outer(inner(ours, every), every)
            expect_close(mine(x, w, b), theirs)
            expect_close(jax.jit(mine)(x, w, b), theirs)


@pytest.mark.parametrize("save_logits", [False, True])
def test_forward_mode_from_saturated_logits(save_logits):
    """The tangent of y is that from the logits, or that from y, as the gradient is."""
    z, of_logits = 20.0, 1 / (2 + np.exp(20.0) + np.exp(-20.0))
    layer = partial(gj.sigmoid, save_logits=save_logits)
    dense = partial(gj.dense_sigmoid, save_logits=save_logits)
    one = jnp.ones((1, 1))
    for function, at in ((layer, jnp.full((1, 1), z)), (lambda w: dense(one, w), z * one)):
        _, tangent = jax.jvp(function, (at,), (one,))
        (gradient,) = jax.vjp(function, at)[1](one)
        assert np.allclose(tangent, of_logits if save_logits else 0, rtol=1e-5, atol=0)
        assert np.allclose(gradient, tangent, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strict_promotion(dtype):
    """What JAX's own tests turn on: no dtype and no rank is promoted without being asked."""
    arrays = layer_arrays(LAYER, dtype)
    with wide(dtype), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        given = [jnp.asarray(arrays[one]) for one in "xwb"]
        for save_logits in (False, True):

            def layer(x, w, b, save_logits=save_logits):
                return gj.dense_sigmoid(x, w, b, save_logits=save_logits)

            tangents = jax.jvp(layer, given, given)[1]
            assert tangents.dtype == dtype_of(dtype)
            y, vjp = jax.vjp(layer, *given)
            grads, again = jax.vjp(vjp, y)
            further = again(grads)
            mapped = jax.vmap(layer, (0, None, None))(*given)
            for one in (*grads, *jax.tree.leaves(further), mapped):
                assert one.dtype == dtype_of(dtype)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("save_logits", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gradients_beside_jax(dtype, save_logits, compiled):
    """Within what roundings on both sides can make of the gradients, to first order in them.

    z is known within dz_ of Σ|x||w| + |b|: a sum in float32, and two roundings, of product and sum.
    σ'' is no larger than σ', so that σ' is off by as much of itself, by y's rounding, and by three
    of the products. Sums in float32 and a last rounding follow.
    """
    arrays = layer_arrays(Layer((31,), 7, 5), dtype)
    names = ("x", "w", "b")
    x, w, b = (jnp.asarray(arrays[one]) for one in names)
    dy = jnp.asarray(arrays["dy"])

    def gradients(layer):
        def both(x, w, b, dy):
            return jax.vjp(layer, x, w, b)[1](dy)

        return (jax.jit(both) if compiled else both)(x, w, b, dy)

    ours = gradients(lambda *some: gj.dense_sigmoid(*some, save_logits=save_logits))
    theirs = gradients(layer_of_jax)

    x, w, b, dy = (arrays[one].astype(np.float64) for one in (*names, "dy"))
    u, v = FORMATS["float32"].roundoff, FORMATS[dtype].roundoff
    n, k = x.shape
    slack = 1 + 64 * v  # for what is of second order
    off_z = slack * ((k + 1) * u + 2 * v) * (np.abs(x) @ np.abs(w) + np.abs(b))
    y = 1 / (1 + np.exp(-(x @ w + b)))
    dz = np.abs(dy) * y * (1 - y)
    off_dz = slack * (dz * (np.expm1(off_z) + 3 * v) + np.abs(dy) * v * y)
    terms = {  # of each result: a sum of products, of which one factor is known within off_dz
        "x": (dz @ np.abs(w).T, off_dz @ np.abs(w).T, w.shape[1]),
        "w": (np.abs(x).T @ dz, np.abs(x).T @ off_dz, n),
        "b": (dz.sum(axis=0), off_dz.sum(axis=0), n),
    }
    for name, mine, other in zip(names, ours, theirs, strict=True):
        assert mine.dtype == other.dtype == dtype_of(dtype)
        size, off, count = terms[name]
        # JAX sums 16-bit values that it has rounded, and may round each partial sum.
        bound = 2 * slack * (off + (count * (u if dtype == "float32" else v) + v) * size)
        difference = np.abs(np.asarray(mine, np.float64) - np.asarray(other, np.float64))
        assert (difference <= bound + FORMATS[dtype].subnormal).all()


@pytest.mark.parametrize("of", ["y", "z"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_second_order_in_few_digits(dtype, of):
    """Every gradient is rounded once, so are g and dz before, and what is a sum is in float32."""
    arrays = layer_arrays(LAYER, dtype)
    names = ("dy", of, "x", "w")

    def function(dy, state, x, w):
        return gj.dense_sigmoid_backward(dy, x=x, w=w, **{"y": None} | {of: state})

    given = [jnp.asarray(arrays[one]) for one in names]
    grads, vjp = jax.vjp(function, *given)
    cotangents = type(grads)(*(random_array(one.shape, dtype, 9) for one in grads))
    results = vjp(type(grads)(*map(jnp.asarray, cotangents)))

    dy, state, x, w = (arrays[one].astype(np.float64) for one in names)
    gx, gw, gb = (one.astype(np.float64) for one in cotangents)
    y = state if of == "y" else 1 / (1 + np.exp(-state))
    slope = y * (1 - y)  # and its derivative
    curve = 1 - 2 * y if of == "y" else -np.tanh(state / 2) * slope

    def rule(dy, x, w, gx, gw, gb, slope, curve):
        g, dz = gx @ w + x @ gw + gb, dy * slope
        rows = [one.reshape(-1, one.shape[-1]) for one in (gx, dz)]
        return g * slope, g * dy * curve, dz @ gw.T, rows[0].T @ rows[1]

    operands = (dy, x, w, gx, gw, gb, slope, curve)
    u, v, least = FORMATS["float32"].roundoff, *FORMATS[dtype][:2]
    lost = least * (2 + np.abs(gx @ w + x @ gw + gb).max())  # where g or dz is subnormal
    for result, exact, size in zip(
        results, rule(*operands), rule(*map(np.abs, operands)), strict=True
    ):
        assert result.dtype == dtype_of(dtype)
        difference = np.abs(np.asarray(result, np.float64) - exact)
        assert (difference <= (3 * v + 64 * u) * size + lost).all()


@pytest.mark.parametrize(
    ("dtype", "logit"), [("float64", 40), ("float32", 20), ("float16", 9), ("bfloat16", 10)]
)
def test_logits_keep_the_gradient_that_jax_loses(dtype, logit):
    with wide(dtype):
        z = jnp.full((3, 1), logit, dtype)
        one, none = jnp.ones((1, 1), dtype), jnp.zeros(1, dtype)
        true = np.exp(-float(logit)) / (1 + np.exp(-float(logit))) ** 2
        near = 2 * FORMATS[dtype].roundoff * true + FORMATS[dtype].subnormal + 1e-5 * true

        def total(function):
            return lambda *operands: function(*operands).sum()

        assert (jax.grad(total(jax.nn.sigmoid))(z) == 0).all()
        assert (jax.grad(total(gj.sigmoid))(z) == 0).all()
        for dz in (
            jax.grad(total(lambda z: gj.sigmoid(z, save_logits=True)))(z),
            jax.grad(total(lambda x: gj.dense_sigmoid(x, one, none, save_logits=True)))(z),
        ):
            assert (np.abs(np.asarray(dz, np.float64) - true) <= near).all()


# ---- what is computed, and how often


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("save_logits", [False, True])
def test_one_backward_call_for_what_is_asked(calls, save_logits, compiled):
    arrays = on_jax(layer_arrays(LAYER, "float32"))
    x, w, b = (arrays[one] for one in "xwb")
    layer = partial(gj.dense_sigmoid, precision="ieee", save_logits=save_logits)
    loss = loss_of(layer)
    for argnums, wrt in [((0, 1, 2), ("x", "w", "b")), ((1,), ("w",)), ((0, 2), ("x", "b"))]:
        function = jax.value_and_grad(loss, argnums)
        jax.block_until_ready((jax.jit(function) if compiled else function)(x, w, b))
        asked = {"precision": "ieee"}
        forward = ("sigmoid", {}) if save_logits else ("dense_sigmoid", asked)
        assert calls == [forward, ("dense_sigmoid_backward", {"wrt": wrt} | asked)]
        calls.clear()


def test_precision_of_second_derivatives(calls):
    arrays = on_jax(layer_arrays(LAYER, "float32"))
    dy, y, x, w = (arrays[one] for one in ("dy", "y", "x", "w"))

    def products(x, w):
        first = gj.matmul_backward(dy, x, w, precision="high")
        second = gj.dense_sigmoid_backward(dy, y, x, w, precision="high")
        return sum(one.sum() for one in (*first, *second))

    jax.grad(products, (0, 1))(x, w)
    assert [options["precision"] for _, options in calls] == ["high"] * 4


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_mapped_rows_are_one_call(calls, compiled):
    """With w and b in common, the gradients' sums too; other maps are JAX's own expressions."""
    arrays = on_jax(layer_arrays(Layer((6, 5), 3, 4), "float32"))
    x, w, b, y, dy = (arrays[one] for one in ("x", "w", "b", "y", "dy"))

    def run(function, *operands):
        results = (jax.jit(function) if compiled else function)(*operands)
        jax.block_until_ready(results)
        made = calls.copy()
        calls.clear()
        return results, made

    rows = (0, None, None)
    mapped = jax.vmap(jax.vmap(gj.dense_sigmoid, rows), (1, None, None), 1)
    result, made = run(mapped, x, w, b)
    assert len(made) == 1
    assert np.allclose(result, gj.dense_sigmoid(x, w, b), rtol=1e-6)
    calls.clear()

    loss = loss_of(jax.vmap(gj.dense_sigmoid, rows))
    grads, made = run(jax.grad(loss, (0, 1, 2)), x, w, b)
    assert [name for name, _ in made] == ["dense_sigmoid", "dense_sigmoid_backward"]
    for one, other in zip(grads, jax.grad(loss_of(layer_of_jax), (0, 1, 2))(x, w, b), strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-5)

    def dx(dy, y, x, w):
        return gj.dense_sigmoid_backward(dy, y, x, w, wrt=("x",)).dx

    assert len(run(jax.vmap(dx, (0, 0, 0, None)), dy, y, x, w)[1]) == 1
    assert len(run(jax.vmap(dx, (0, None, None, None)), dy, y[0], x[0], w)[1]) == 1
    assert len(run(jax.vmap(gj.sigmoid_backward, (None, 0)), dy[0], y)[1]) == 1
    w5 = jnp.stack([w] * 5)
    assert not run(jax.vmap(gj.dense_sigmoid_backward, (0, 0, 0, None)), dy, y, x, w)[1]
    assert not run(jax.vmap(gj.dense_sigmoid, (None, 0)), x, w5)[1]
    assert not run(jax.vmap(jax.vmap(gj.dense_sigmoid, (0, None)), (None, 0)), x, w5)[1]


# ---- vmap


MAPPED = {  # of the functions, with the operands that a subset of is mapped
    "dense_sigmoid": "x w b",
    "matmul_backward": "dy x w",
    "sigmoid_bias_backward": "dy z",
    "dense_sigmoid_backward": "dy y x w",
}


@pytest.mark.parametrize("op", MAPPED)
def test_mapped_over_any_operands(op):
    """Every element within the bounds of the function, wherever the axis is."""
    lead, k, m, count = (2, 3), 4, 5, 3
    names = MAPPED[op].split()
    batched = layer_arrays(Layer((count, *lead), k, m), "float32")
    batched["w"] = random_array((count, k, m), "float32", 7)
    batched["b"] = random_array((count, m), "float32", 8)
    for subset in itertools.product((False, True), repeat=len(names)):
        if not any(subset):
            continue
        axes = {
            name: i % 3 - 1 if on else None
            for i, (name, on) in enumerate(zip(names, subset, strict=True))
        }
        given = [
            batched[name][0] if axes[name] is None else np.moveaxis(batched[name], 0, axes[name])
            for name in names
        ]

        def call(*operands):
            some = dict(zip(names, operands, strict=True))
            return FUNCTIONS[op](**({"y": None} if "z" in some else {}) | some)

        results = jax.vmap(call, tuple(axes.values()))(*given)
        for i in range(count):
            some = {name: batched[name][0 if axes[name] is None else i] for name in names}
            answers = reference(op, **some)
            for name, result in zip(OPERATIONS[op].results, as_tuple(results), strict=True):
                answer = answers[name]
                flushed = np.finfo(np.float32).tiny  # XLA turns subnormal numbers to zeros
                answer = answer._replace(bound=answer.bound + flushed)
                assert worst_element(np.asarray(result[i]), answer).ratio <= 1


@pytest.mark.parametrize("save_logits", [False, True])
@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 1), (1, 0, None), (0, 0, 0)], ids=str)
def test_gradients_of_mapped_layers(axes, save_logits):
    """Gradients of vmap, vmap of grad and both twice, beside JAX's own."""
    arrays = layer_arrays(Layer((3, 2), 4, 5), "float64")
    with wide("float64"):
        x = jnp.asarray(arrays["x"])
        w = jnp.asarray(random_array((3, 4, 5), "float64", 7))
        b = jnp.asarray(random_array((3, 5), "float64", 8))
        given = [
            one if axis == 0 else one[0] if axis is None else jnp.moveaxis(one, 0, axis)
            for one, axis in zip((x, w, b), axes, strict=True)
        ]

        def ours(*operands):
            return gj.dense_sigmoid(*operands, save_logits=save_logits)

        def everything(layer):
            every = (0, 1, 2)
            mapped = loss_of(jax.vmap(layer, axes))
            twice = jax.vmap(jax.vmap(layer, (0, None, None)), axes)
            return (
                jax.grad(mapped, every)(*given),
                jax.vmap(jax.grad(loss_of(layer), every), axes)(*given),
                jax.grad(loss_of(twice), every)(*given),
                jax.grad(lambda *some: loss_of(jax.grad(mapped))(*some), every)(*given),
            )

        expect_close(everything(ours), everything(layer_of_jax))


def test_gradients_of_layers_mapped_twice():
    """With w for one axis, b for the other, and x for both or neither."""
    with wide("float64"):
        x, w, b = (
            jnp.asarray(random_array(shape, "float64", seed))
            for seed, shape in enumerate([(2, 3, 6, 4), (2, 4, 5), (3, 5)])
        )

        def everything(layer, x, axis):
            mapped = jax.vmap(jax.vmap(layer, (axis, None, 0)), (axis, 0, None))
            return jax.jit(jax.grad(loss_of(mapped), (0, 1, 2)))(x, w, b)

        for given, axis in ((x, 0), (x[0, 0], None)):
            ours = everything(gj.dense_sigmoid, given, axis)
            expect_close(ours, everything(layer_of_jax, given, axis))


def test_mapped_over_nothing():
    x, w = jnp.ones((0, 3)), jnp.ones((0, 3, 2))
    assert jax.vmap(gj.dense_sigmoid, (0, None))(x, w.reshape(3, 0)).shape == (0, 0)
    assert jax.vmap(gj.dense_sigmoid)(x, w).shape == (0, 2)


# ---- other transformations


def stack_of_layers(layer):
    def loss(x, ws, b):
        for w in ws:
            x = layer(x, w, b)
        return (x**2).sum()

    return loss


def scanned(layer):
    def loss(x, ws, b):
        return (jax.lax.scan(lambda x, w: (layer(x, w, b), None), x, ws)[0] ** 2).sum()

    return loss


@pytest.mark.parametrize("save_logits", [False, True])
def test_checkpoint_scan_cond_and_donation(save_logits):
    with wide("float64"):
        x = jnp.asarray(random_array((6, 4), "float64", 0))
        ws = jnp.asarray(random_array((3, 4, 4), "float64", 1, 0.25))
        b = jnp.asarray(random_array((4,), "float64", 2))

        def layer(x, w, b):
            return gj.dense_sigmoid(x, w, b, save_logits=save_logits)

        def either(x, w, b):
            return jax.lax.cond(x[0, 0] > 1e9, layer_of_jax, layer, x, w, b)

        def gradients(loss):
            return jax.value_and_grad(loss, (0, 1, 2))

        expected = gradients(stack_of_layers(layer_of_jax))(x, ws, b)
        donating = jax.jit(gradients(stack_of_layers(layer)), donate_argnums=0)
        for function, operands in (
            (gradients(stack_of_layers(jax.checkpoint(layer))), (x, ws, b)),
            (jax.jit(gradients(scanned(jax.checkpoint(layer)))), (x, ws, b)),
            (gradients(scanned(layer)), (x, ws, b)),
            (jax.jit(gradients(stack_of_layers(either))), (x, ws, b)),
            (donating, (x + 0, ws, b)),
        ):
            expect_close(function(*operands), expected)


def test_without_compiling():
    z = np.linspace(-1, 1, 5, dtype=np.float32)
    with jax.disable_jit():
        dz = jax.jit(jax.grad(lambda z: gj.sigmoid(z).sum()))(z)
    expected = gpugrad.sigmoid_backward(np.ones_like(z), gpugrad.sigmoid(z))
    assert same_bits(np.asarray(dz), expected)


@pytest.mark.parametrize("op", OPERATIONS)
def test_platforms_that_functions_are_compiled_for(op):
    arrays = on_jax(layer_arrays(LAYER, "float32"))
    traced = jax.jit(FUNCTIONS[op]).trace(**operands_of(op, arrays))
    for platform, target in (("cpu", "python_cpu_callback"), ("cuda", "python_gpu_callback")):
        assert target in traced.lower(lowering_platforms=(platform,)).as_text()
    with pytest.raises(NotImplementedError, match=rf"^{op}: gpugrad computes on CPUs and NVIDIA"):
        traced.lower(lowering_platforms=("tpu",))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", OPERATIONS)
def test_what_a_compiled_call_launches(gpu, op, dtype):
    """XLA's buffers, played by CuPy's arrays: computed on XLA's stream, whatever it has waiting."""
    cupy = pytest.importorskip("cupy")
    arrays = operands_of(op, layer_arrays(LAYER, dtype))
    results = OPERATIONS[op].results
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        given = [cupy.asarray(one) for one in arrays.values()]
        expected = as_tuple(getattr(gpugrad, op)(*given))
        buffers = [cupy.empty_like(one) for one in expected]
    traced = gj.traced.Traced(op, tuple(arrays), results, "highest")
    gj.lowering.fill(traced, SimpleNamespace(stream=stream.ptr), buffers, given)
    stream.synchronize()
    for one, other in zip(buffers, expected, strict=True):
        assert same_bits(one.get(), other.get())


@pytest.mark.gpu
def test_on_a_gpu():
    """At once and compiled, within bounds and without a way through the host."""
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError:
        device = None
    if device is None or not ON_A_GPU:
        pytest.skip("needs a GPU, and JAX for it")
    arrays = layer_arrays(LAYER, "float32")
    x, w, b = (jax.device_put(arrays[one], device) for one in "xwb")
    with jax.default_device(device), jax.transfer_guard_device_to_host("disallow"):
        y, vjp = jax.vjp(gj.dense_sigmoid, x, w, b)
        grads = vjp(y)
        assert (jax.jit(gj.dense_sigmoid)(x, w, b) == y).all()
    assert_within_bounds("dense_sigmoid", y, planes={}, x=x, w=w, b=b)
    assert_within_bounds("dense_sigmoid_backward", grads, planes={}, dy=y, y=y, x=x, w=w)
    assert all(one.devices() == {device} for one in grads)


# ---- bad input, as gpugrad's own functions tell it


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


WRONG = [  # a function, its arguments, and the error
    ("sigmoid", (ones(3, dtype="int32"),), {}, DTypeError),
    ("sigmoid", (ones(3, dtype="complex64"),), {}, DTypeError),
    ("dense_sigmoid", (ones(4, 3), ones(2, 5)), {}, ShapeError),
    ("dense_sigmoid", (ones(4, 3), ones(3, 5), ones(3)), {}, ShapeError),
    ("dense_sigmoid", (ones(4, 3), ones(3)), {}, ShapeError),
    ("dense_sigmoid", (ones(), ones(3, 5)), {}, ShapeError),
    ("dense_sigmoid", (ones(4, 3), ones(3, 5, dtype="float16")), {}, DTypeError),
    ("dense_sigmoid", (ones(4, 3), ones(3, 5)), {"precision": "low"}, ArgumentError),
    ("matmul_backward", (ones(4, 5), ones(4, 3), ones(3, 4)), {}, ShapeError),
    ("matmul_backward", (ones(4, 5), ones(4, 3), ones(3, 5)), {"wrt": ("b",)}, ArgumentError),
    ("matmul_backward", (ones(4, 5), ones(4, 3), ones(3, 5)), {"wrt": 1}, DTypeError),
    ("matmul_backward", (ones(4, 5), ones(4, 3), None), {}, DTypeError),
    ("bias_backward", (ones(),), {}, ShapeError),
    ("sigmoid_backward", (ones(4, 5), ones(4)), {}, ShapeError),
    ("sigmoid_backward", (ones(4, 5), None), {}, DTypeError),
    ("sigmoid_backward", (ones(4, 5), ones(4)), {"z": ones(4, 5)}, ShapeError),
    ("sigmoid_bias_backward", (ones(4, 5), ones(4, 5)), {"z": ones(4)}, ShapeError),
    (
        "dense_sigmoid_backward",
        (ones(4, 5), ones(4, 5), ones(6, 3), ones(3, 5)),
        {"wrt": ("x",)},
        ShapeError,
    ),
]


@pytest.mark.parametrize(("op", "args", "options", "error"), WRONG)
def test_bad_input_is_reported_when_traced(op, args, options, error):
    with pytest.raises(error) as expected:
        getattr(gpugrad, op)(*args, **options)

    arrays = {i: one for i, one in enumerate(args) if one is not None}
    given = {name: one for name, one in options.items() if isinstance(one, np.ndarray)}
    static = {name: one for name, one in options.items() if name not in given}

    def call(arrays, given):
        return FUNCTIONS[op](*(arrays.get(i) for i in range(len(args))), **given, **static)

    def mapped(arrays, given):
        rows = jax.tree.map(lambda one: jnp.stack([one, one]), (arrays, given))
        return jax.vmap(call)(*rows)

    for transformed in (
        call,
        jax.jit(call),
        lambda *some: jax.eval_shape(call, *some),
        lambda *some: jax.vjp(call, *some),
        mapped,
    ):
        with pytest.raises(error) as found:
            transformed(arrays, given)
        assert str(found.value) == str(expected.value)


def test_what_is_no_array():
    for bad in ([1.0], "one", (1.0,), object()):
        kind = type(bad).__name__
        with pytest.raises(DTypeError, match=rf"^sigmoid_backward: y is a {kind}, expected a JAX"):
            gj.sigmoid_backward(1.0, bad)
    with pytest.raises(DTypeError, match=r"^sigmoid: z has dtype int32"):
        gj.sigmoid(1)
    with pytest.raises(DTypeError, match=r"^sigmoid: z is None"):
        gj.sigmoid(None)
    with pytest.raises(DTypeError, match=r"^sigmoid: z "):
        gj.sigmoid(jax.random.key(0))
    with (
        pytest.raises(DTypeError, match=r"^sigmoid_backward: y has dtype float64"),
        wide("float64"),
    ):
        gj.sigmoid_backward(np.float32(1), 1.0)
    deleted = jnp.ones(3)
    deleted.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        gj.sigmoid(deleted)


def test_an_error_on_the_way_is_raised(monkeypatch):
    """By a compiled function that can be called again."""
    compiled, z = jax.jit(gj.sigmoid), jnp.zeros(3)
    with monkeypatch.context() as patch:
        patch.setattr(gpugrad, "sigmoid", lambda *_, **__: 1 / 0)
        with pytest.raises(jax.errors.JaxRuntimeError, match="ZeroDivisionError"):
            jax.block_until_ready(compiled(z))
    assert (compiled(z) == 0.5).all()


def run(program, **environment):
    """Run a program in a process of its own; it fails if it has not ended after two minutes."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("sys.modules['jax'] = None", "needs JAX (pip install 'gpugrad[jax]')"),
        (
            "import jax; jax.__version_info__ = (0, 9, 1)",
            "needs JAX 0.10 or newer (pip install -U 'gpugrad[jax]')",
        ),
    ],
)
def test_without_jax_or_with_an_old_one(before, says):
    program = f"""
import sys, gpugrad
{before}
try:
    import gpugrad.jax
except ImportError as error:
    print(type(error).__name__, error.name, error)
"""
    kind = "ModuleNotFoundError" if "None" in before else "ImportError"
    assert run(program) == f"{kind} jax gpugrad.jax {says}\n"


def test_several_devices():
    """Whole arrays and parts of them, at once and compiled: right, or refused by name."""
    program = """
import jax, jax.numpy as jnp, numpy as np, gpugrad.jax as gj
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
first, second = jax.devices()
mesh = Mesh(np.array([first, second]), ("rows",))
x, w, b = (jnp.linspace(-1.0, 1.0, n).reshape(s) for n, s in ((12, (4, 3)), (6, (3, 2)), (2, (2,))))
grads = jax.grad(lambda *a: gj.dense_sigmoid(*a).sum(), (0, 1, 2))
expected = grads(x, w, b)
parts, far = jax.device_put(x, NamedSharding(mesh, P("rows"))), jax.device_put(x, second)

def right(results):
    return all(np.allclose(a, b, atol=1e-6) for a, b in zip(results, expected, strict=True))

def refused(function, *arrays):
    try:
        function(*arrays)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

print(right(jax.jit(grads)(parts, w, b)))
print(right(grads(far, w, b)), gj.dense_sigmoid(far, w, b).devices() == {second})
with jax.default_device(second):
    loose = jnp.ones(3)
print(gj.sigmoid(loose).devices() == {second}, gj.sigmoid(loose).committed)
print(right(grads(parts, w, b)))
print(refused(gj.dense_sigmoid, far, jax.device_put(w, first)))
for tracked in (False, True):
    def both(x, w, b):
        dx, dw, db = grads(x, w, b)
        if not tracked:  # or else the gradients of what all devices have in common are sums
            dw, db = jax.lax.psum((dw, db), "rows")
        return dx, dw, db
    split = jax.shard_map(both, mesh=mesh, in_specs=(P("rows"), P(), P()),
                          out_specs=(P("rows"), P(), P()), check_vma=tracked)
    print(right(jax.jit(split)(parts, w, b)))
"""
    lines = run(program, XLA_FLAGS="--xla_force_host_platform_device_count=2").splitlines()
    assert lines[:3] == ["True", "True True", "True False"]
    assert lines[3] == "True"
    assert lines[4].startswith("DeviceError: dense_sigmoid: w is on device")
    assert lines[5:] == ["True", "True"]


def test_sharded_under_jit():
    """Rows, columns and both on four devices, as XLA's partitioner divides them, and not compiled.

    Rows: what is summed over them is summed once, dw and db together, and nothing is gathered.
    """
    program = """
import re
import jax, jax.numpy as jnp, numpy as np, gpugrad.jax as gj
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(AxisType.Auto,) * 2)
random = np.random.default_rng(0)
x, w, b = (jnp.asarray(random.normal(size=s), "float32") for s in ((2, 4, 6), (6, 4), (4,)))

def everything(layer):
    def gradients(x, w, b):
        return jax.value_and_grad(lambda *some: (layer(*some) ** 2).sum(), (0, 1, 2))(x, w, b)
    return gradients

def ours(save_logits):
    return everything(lambda *some: gj.dense_sigmoid(*some, save_logits=save_logits))

expected = jax.tree.leaves(everything(lambda x, w, b: jax.nn.sigmoid(x @ w + b))(x, w, b))

def right(results):
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(jax.tree.leaves(results), expected))

for specs in [
    (P(None, "rows"), P(), P()),
    (P("rows", "columns"), P(), P()),
    (P(), P(None, "columns"), P("columns")),
    (P("rows"), P(None, "columns"), P("columns")),
    (P(None, None, "columns"), P("columns"), P()),
    (P(), P(), P()),
    (P("rows"), P(None, "rows"), P("rows")),
    (P("rows"), P("rows"), P()),
]:
    given = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip((x, w, b), specs)]
    compiled = jax.jit(ours(False))
    _, grads = results = compiled(*given)
    text = compiled.lower(*given).compile().as_text()
    counts = [len(re.findall(rf" {op}\\(", text)) for op in ("all-reduce", "all-gather")]
    ok = right(results) and right(jax.jit(ours(True))(*given)) and right(ours(False)(*given))
    print(ok, *counts, *(one.sharding.spec for one in grads))
stack = jax.device_put(jnp.ones((4, 4, 3)), NamedSharding(mesh, P("rows", "columns")))
print(jax.jit(gj.sigmoid)(stack).sharding.spec)
"""
    lines = run(program, XLA_FLAGS="--xla_force_host_platform_device_count=4").splitlines()
    assert lines[0] == "True 1 0 P(None, 'rows') P() P()"
    assert lines[1].endswith(" 0 P('rows', 'columns') P() P()")
    assert all(line.startswith("True") for line in lines[:8])
    assert lines[2].endswith("P() P(None, 'columns') P('columns',)")
    assert lines[3].endswith(" 0 P('rows',) P(None, 'columns') P('columns',)")
    assert lines[8] == "P('rows', 'columns')"


def test_nothing_hangs():
    """Large arrays, several calls in one function, functions on several threads."""
    program = """
import threading
import jax, jax.numpy as jnp, gpugrad.jax as gj
x, w, b = jnp.full((40000, 64), 0.5), jnp.full((64, 64), 0.01), jnp.zeros(64)

@jax.jit
def step(x, w, b):
    def loss(w, b):
        return gj.dense_sigmoid(gj.dense_sigmoid(x, w, b), w, b).sum()
    apart = [gj.sigmoid_bias_backward(x, x * i) for i in range(3)]
    return jax.grad(loss, (0, 1))(w, b), apart

def work():
    for _ in range(3):
        results = [step(x, w, b) for _ in range(2)]
        gj.dense_sigmoid(x, w, b)
        jax.block_until_ready(results)

threads = [threading.Thread(target=work) for _ in range(3)]
for one in threads:
    one.start()
for one in threads:
    one.join()
step(x, w, b)  # which the interpreter's end does not wait for
print("done")
"""
    assert run(program) == "done\n"
