"""gpugrad.autograd: what HIPS autograd differentiates, beside differences and its own gradients."""

# ruff: noqa: E402  (what needs autograd is imported after it)

import doctest
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

autograd = pytest.importorskip("autograd", reason="needs autograd")

import autograd.numpy as anp
from autograd.test_util import check_grads

import gpugrad
import gpugrad.autograd as ag
from gpugrad import backward
from gpugrad.autograd import functions
from gpugrad.errors import ArgumentError, DTypeError, ShapeError
from tests.support.cases import DTYPES, LAYERS, SHAPES, Layer, elementwise_arrays, layer_arrays
from tests.support.operations import OPERATIONS, same_bits

SMALL = [layer for layer in LAYERS if not layer.big]
LAYER = Layer((2, 3), 4, 5)
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def traced(grads):
    """A tuple that autograd knows, of the gradients that were asked for."""
    return autograd.tuple([one for one in grads if one is not None])


# What is differentiated with respect to, and a function of arrays by name.
ELEMENTWISE = {
    "sigmoid": ("z", lambda a: ag.sigmoid(a.z)),
    "sigmoid, logits": ("z", lambda a: ag.sigmoid(a.z, save_logits=True)),
    "sigmoid_backward": ("dy y", lambda a: ag.sigmoid_backward(a.dy, a.y)),
    "sigmoid_backward, logits": ("dy z", lambda a: ag.sigmoid_backward(a.dy, None, z=a.z)),
}
OF_LAYERS = {
    "dense_sigmoid": ("x w b", lambda a: ag.dense_sigmoid(a.x, a.w, a.b)),
    "dense_sigmoid, no bias": ("x w", lambda a: ag.dense_sigmoid(a.x, a.w)),
    "dense_sigmoid, w alone": ("w", lambda a: ag.dense_sigmoid(a.x, a.w, a.b)),
    "dense_sigmoid, b alone": ("b", lambda a: ag.dense_sigmoid(a.x, a.w, a.b, save_logits=True)),
    "dense_sigmoid, logits": (
        "x w b",
        lambda a: ag.dense_sigmoid(a.x, a.w, a.b, save_logits=True),
    ),
    "dense_sigmoid, logits, no bias": (
        "x w",
        lambda a: ag.dense_sigmoid(a.x, a.w, save_logits=True),
    ),
    "matmul_backward": ("dy x w", lambda a: traced(ag.matmul_backward(a.dy, a.x, a.w))),
    "matmul_backward, dx": ("dy w", lambda a: ag.matmul_backward(a.dy, a.x, a.w, wrt=["x"]).dx),
    "matmul_backward, dw": ("dy x", lambda a: ag.matmul_backward(a.dy, a.x, a.w, wrt="w").dw),
    "bias_backward": ("dy", lambda a: ag.bias_backward(a.dy)),
    "sigmoid_bias_backward": ("dy y", lambda a: traced(ag.sigmoid_bias_backward(a.dy, a.y))),
    "sigmoid_bias_backward, logits": (
        "dy z",
        lambda a: traced(ag.sigmoid_bias_backward(a.dy, None, z=a.z)),
    ),
    "sigmoid_bias_backward, db": ("dy y", lambda a: ag.sigmoid_bias_backward(a.dy, a.y).db),
    "dense_sigmoid_backward": (
        "dy y x w",
        lambda a: traced(ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w)),
    ),
    "dense_sigmoid_backward, logits": (
        "dy z x w",
        lambda a: traced(ag.dense_sigmoid_backward(a.dy, None, a.x, a.w, z=a.z)),
    ),
    "dense_sigmoid_backward, dx": (
        "dy y w",
        lambda a: ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt="x").dx,
    ),
    "dense_sigmoid_backward, dw and db": (
        "dy y x",
        lambda a: traced(ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt=("b", "w"))),
    ),
    "dense_sigmoid_backward, dx and db": (
        "dy y w",
        lambda a: traced(ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt=iter("bx"))),
    ),
    "dense_sigmoid_backward, db": (
        "dy z",
        lambda a: ag.dense_sigmoid_backward(a.dy, None, a.x, a.w, z=a.z, wrt=("b",)).db,
    ),
}


def check(case, arrays, order):
    """Compare the gradients of a case with differences, in random directions."""
    names, function = case
    names = names.split()

    def of_those(*given):
        return function(SimpleNamespace(**arrays | dict(zip(names, given, strict=True))))

    np.random.seed(0)  # noqa: NPY002  (autograd takes its directions from there)
    argnums = tuple(range(len(names)))
    check_grads(of_those, argnums, modes=["rev"], order=order)(*(arrays[one] for one in names))


@pytest.mark.parametrize("layer", SMALL, ids=str)
@pytest.mark.parametrize("name", OF_LAYERS)
def test_first_and_second_order(name, layer):
    check(OF_LAYERS[name], layer_arrays(layer, "float64"), 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_first_and_second_order_of_any_shape(name, shape):
    check(ELEMENTWISE[name], elementwise_arrays(shape, "float64"), 2)


@pytest.mark.parametrize("name", ELEMENTWISE | OF_LAYERS)
def test_fourth_order(name):
    check((ELEMENTWISE | OF_LAYERS)[name], layer_arrays(Layer((2,), 3, 2), "float64"), 4)


def layer_keeping_logits(x, w, b):
    return ag.dense_sigmoid(x, w, b, save_logits=True)


# ---- results


def operands(dtype, layer=LAYER):
    return SimpleNamespace(**layer_arrays(layer, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_those_of_gpugrad(dtype):
    """In number, order and bits; None is where something is left out."""
    a = operands(dtype)
    pairs = [
        (ag.sigmoid(a.z), gpugrad.sigmoid(a.z)),
        (ag.dense_sigmoid(a.x, a.w, a.b), gpugrad.dense_sigmoid(a.x, a.w, a.b)),
        (ag.bias_backward(a.dy), gpugrad.bias_backward(a.dy)),
        (ag.sigmoid_backward(a.dy, a.y), gpugrad.sigmoid_backward(a.dy, a.y)),
        (ag.sigmoid_backward(a.dy, a.y, z=a.z), gpugrad.sigmoid_backward(a.dy, a.y, z=a.z)),
    ]
    tuples = [
        (ag.sigmoid_bias_backward(a.dy, a.y), gpugrad.sigmoid_bias_backward(a.dy, a.y)),
        *[
            (
                ag.matmul_backward(a.dy, a.x, a.w, wrt=wrt),
                gpugrad.matmul_backward(a.dy, a.x, a.w, wrt=wrt),
            )
            for wrt in ("xw", "x", ("w",), ())
        ],
        *[
            (
                ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt=wrt),
                gpugrad.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt=wrt),
            )
            for wrt in ({"x", "w", "b"}, "bx", ["w", "b"], "b", ())
        ],
    ]
    for ours, theirs in tuples:
        assert type(ours) is type(theirs)
        pairs += zip(ours, theirs, strict=True)
    for ours, theirs in pairs:
        assert ours is theirs is None or same_bits(ours, theirs)


@pytest.mark.parametrize("from_z", [False, True], ids=["from y", "from z"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_gpugrad(dtype, from_z):
    """Bit by bit, from autograd's pass backwards over the layer."""
    a = operands(dtype)
    if from_z:
        exact = np.matmul(a.x.astype("f8"), a.w.astype("f8")) + a.b.astype("f8")
        # One rounding to the dtype, after sums of 4 + 1 terms in (at least) float32.
        magnitude = np.matmul(abs(a.x.astype("f8")), abs(a.w.astype("f8"))) + abs(a.b.astype("f8"))
        z = captured_logits(a)
        bound = UNIT[dtype] * abs(exact) + 6 * min(UNIT[dtype], UNIT["float32"]) * magnitude
        assert (abs(z.astype("f8") - exact) <= bound).all()
        y = gpugrad.sigmoid(z)
    else:
        z, y = None, gpugrad.dense_sigmoid(a.x, a.w, a.b)
    expected = gpugrad.dense_sigmoid_backward(a.dy, y, a.x, a.w, z=z)

    def layer(x, w, b):
        return ag.dense_sigmoid(x, w, b, save_logits=from_z)

    for argnums in ((0, 1, 2), (0,), (1, 2), (2,)):
        vjp, value = autograd.make_vjp(layer, argnums)(a.x, a.w, a.b)
        assert same_bits(value, y)
        for number, ours in zip(argnums, vjp(a.dy), strict=True):
            assert same_bits(ours, expected[number])
    vjp, _ = autograd.make_vjp(lambda z: ag.sigmoid(z, save_logits=from_z))(a.z)
    y = gpugrad.sigmoid(a.z)
    assert same_bits(vjp(a.dy), gpugrad.sigmoid_backward(a.dy, y, z=a.z if from_z else None))


def captured_logits(a):
    """The logits that the layer keeps, caught on their way to the sigmoid."""
    caught = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpugrad.forward.sigmoid", lambda z: caught.append(z) or gpugrad.sigmoid(z))
        ag.dense_sigmoid(a.x, a.w, a.b, save_logits=True)
    return caught[0]


@pytest.mark.parametrize("save_logits", [False, True])
@pytest.mark.parametrize("argnums", [(0, 1, 2), (1, 2), (1,), (0, 2)])
def test_one_call_for_what_is_differentiated(monkeypatch, argnums, save_logits):
    """And none for anything else."""
    calls = []
    for name in ("matmul_backward", "bias_backward", "sigmoid_backward", "sigmoid_bias_backward"):
        monkeypatch.setattr(backward, name, None if name != "matmul_backward" else forward_only)

    def noted(*given, wrt, **options):
        calls.append(wrt)
        return gpugrad.dense_sigmoid_backward(*given, wrt=wrt, **options)

    monkeypatch.setattr(backward, "dense_sigmoid_backward", noted)
    a = operands("float32")

    def loss(x, w, b):
        return anp.sum(ag.dense_sigmoid(x, w, b, save_logits=save_logits) ** 2)

    autograd.grad(loss, argnums)(a.x, a.w, a.b)
    assert calls == [tuple("xwb"[number] for number in argnums)]


def forward_only(*given, **options):
    assert options["accumulate"], "the logits' product is the only one"
    return gpugrad.matmul_backward(*given, **options)


def note_calls(monkeypatch, *names):
    """Return a list of what the functions of gpugrad are called with."""
    calls = []

    def noting(function):
        def noted(*given, **options):
            calls.append(options)
            return function(*given, **options)

        return noted

    for name in names:
        monkeypatch.setattr(backward, name, noting(getattr(backward, name)))
    return calls


@pytest.mark.parametrize("save_logits", [False, True])
def test_precision_reaches_every_product(monkeypatch, save_logits):
    calls = note_calls(monkeypatch, "matmul_backward", "dense_sigmoid_backward")
    a = operands("float32")

    def layer(x, w):
        return ag.dense_sigmoid(x, w, a.b, precision="ieee", save_logits=save_logits)

    def slope(x, w):
        grads = autograd.grad(lambda x, w: anp.sum(layer(x, w)), (0, 1))(x, w)
        return sum(anp.sum(one**2) for one in grads)

    autograd.grad(slope, (0, 1))(a.x, a.w)
    assert len(calls) > 3
    assert {options["precision"] for options in calls} == {"ieee"}


def test_logits_are_computed_once(monkeypatch):
    """Also where they are differentiated once more, beside all that is to come."""
    calls = note_calls(monkeypatch, "matmul_backward")
    a = operands("float32")
    slope = autograd.grad(lambda w: anp.sum(layer_keeping_logits(a.x, w, a.b)))
    autograd.make_vjp(slope)(a.w)
    assert len(calls) == 1


# ---- beside autograd's own


def plain(x, w, b):
    return 1 / (1 + anp.exp(-(anp.matmul(x, w) + b)))


def wide(a):
    return SimpleNamespace(**{name: one.astype(np.float64) for name, one in vars(a).items()})


@pytest.mark.parametrize("save_logits", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_beside_autograds_own(dtype, save_logits):
    """Whose gradients of the same values in float64 are exact, beside ours.

    With u = eps/2: z errs by (k + 2) u (|x| |w| + |b|), y by a quarter of that and 4 u, so
    y (1 - y) by as much again, and dz by |dy| times it. The products add their own (length + 2) u.
    """
    a = operands(dtype, Layer((7, 3), 6, 5))
    n, k, m = 21, 6, 5
    vjp, _ = autograd.make_vjp(plain, (0, 1, 2))((e := wide(a)).x, e.w, e.b)
    expected = vjp(e.dy)
    u = UNIT[dtype]
    of_y = (k + 2) * u * (abs(e.x) @ abs(e.w) + abs(e.b)) / 4 + 4 * u
    of_dz = abs(e.dy) * of_y + 4 * u * abs(e.dy)
    size = abs(e.dy) / 4 + of_dz
    x_rows, size_rows, of_rows = (one.reshape(n, -1) for one in (abs(e.x), size, of_dz))
    bounds = (
        of_dz @ abs(e.w).T + (m + 2) * u * size @ abs(e.w).T,
        x_rows.T @ of_rows + (n + 2) * u * x_rows.T @ size_rows,
        of_rows.sum(0) + (n + 2) * u * size_rows.sum(0),
    )

    def layer(x, w, b):
        return ag.dense_sigmoid(x, w, b, save_logits=save_logits)

    vjp, _ = autograd.make_vjp(layer, (0, 1, 2))(a.x, a.w, a.b)
    for ours, theirs, bound in zip(vjp(a.dy), expected, bounds, strict=True):
        assert ours.dtype == a.x.dtype
        assert (abs(ours.astype(np.float64) - theirs) <= bound).all()


def network(layer, a):
    """A loss of two layers, and where to differentiate it."""
    random = np.random.default_rng(0)
    w2 = random.standard_normal((a.w.shape[1], 2)).astype(a.w.dtype)
    b2 = random.standard_normal(2).astype(a.w.dtype)

    def loss(w1, b1, w2, b2):
        hidden = layer(a.x, w1, b1)
        return anp.sum((layer(hidden, w2, b2) - a.x[..., :2]) ** 2)

    return loss, (a.w, a.b, w2, b2)


OURS = {
    "from y": ag.dense_sigmoid,
    "from z": layer_keeping_logits,
    "checkpoint": autograd.checkpoint(ag.dense_sigmoid),
}


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_network(dtype, ours):
    loss, given = network(OURS[ours], operands(dtype))
    theirs, _ = network(plain, wide(operands(dtype)))
    ours_and_theirs = zip(
        autograd.grad(loss, (0, 1, 2, 3))(*given),
        autograd.grad(theirs, (0, 1, 2, 3))(*(one.astype(np.float64) for one in given)),
        strict=True,
    )
    for mine, other in ours_and_theirs:
        assert mine.dtype == dtype
        assert close(mine, other, dtype)


def close(ours, theirs, dtype):
    """Return whether two results agree but for rounding.

    No more than 30 additions and multiplications are between inputs and results, in sums of up to
    30 terms whose parts are no larger than 30 times the largest result.
    """
    return np.abs(ours - theirs).max() <= 30**2 * UNIT[dtype] * np.abs(theirs).max()


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_hessian_vector_products(dtype, ours):
    loss, given = network(OURS[ours], operands(dtype))
    theirs, _ = network(plain, wide(operands(dtype)))
    doubles = [one.astype(np.float64) for one in given]
    for number, one in enumerate(given):
        vector = np.random.default_rng(number).standard_normal(one.shape).astype(dtype)
        mine = autograd.hessian_vector_product(loss, number)(*given, vector)
        other = autograd.hessian_vector_product(theirs, number)(*doubles, vector.astype("f8"))
        assert mine.dtype == dtype
        assert close(mine, other, dtype)


@pytest.mark.parametrize("ours", OURS)
def test_jacobians_and_hessians(ours):
    a = operands("float64", Layer((2,), 3, 2))
    for number, given in enumerate((a.x, a.w, a.b)):

        def of_one(layer, number=number):
            def function(value):
                arguments = [a.x, a.w, a.b]
                arguments[number] = value
                return layer(*arguments)

            return function

        mine, other = of_one(OURS[ours]), of_one(plain)
        assert close(autograd.jacobian(mine)(given), autograd.jacobian(other)(given), "float64")
        curved, own = (lambda v, f=f: anp.sum(f(v) ** 3) for f in (mine, other))
        assert close(autograd.hessian(curved)(given), autograd.hessian(own)(given), "float64")


def test_mixed_second_derivatives():
    """The gradient with respect to w of a gradient with respect to x."""
    a = operands("float64")

    def slope(layer):
        def function(w, b):
            dx = autograd.grad(lambda x: anp.sum(layer(x, w, b) * a.dy))(a.x)
            return anp.sum(dx**2)

        return autograd.grad(function, (0, 1))

    for ours in OURS.values():
        for mine, other in zip(slope(ours)(a.w, a.b), slope(plain)(a.w, a.b), strict=True):
            assert close(mine, other, "float64")


@pytest.mark.parametrize("save_logits", [False, True])
def test_elementwise_grad(save_logits):
    z = np.linspace(-8, 8, 33)

    def ours(z):
        return ag.sigmoid(z, save_logits=save_logits)

    for _ in range(3):
        own, mine = (
            autograd.elementwise_grad(f) for f in (lambda z: anp.tanh(z / 2) / 2 + 0.5, ours)
        )
        np.testing.assert_allclose(mine(z), own(z), rtol=1e-10, atol=1e-13)


# ---- what autograd asks of its functions


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_saturated_logits_keep_every_derivative(dtype):
    """σ', σ'', σ''' and σ'''' are ±e^-z(1 - ...) for large z: none is 0, none overflows."""
    top = {"float64": 700.0, "float32": 80.0, "float16": 9.0}[dtype]
    z = np.array([-top, -top / 2, top / 2, top], dtype)
    derivative = ag.sigmoid
    for order in range(1, 5):
        derivative = autograd.elementwise_grad(
            (lambda z: ag.sigmoid(z, save_logits=True)) if order == 1 else derivative
        )
        found = derivative(z)
        assert found.dtype == dtype
        signs = np.where(z > 0, (-1) ** (order + 1), 1)
        # The next term is 2^order e^-2|z|. A subnormal result has fewer digits.
        true = signs * np.exp(-abs(z.astype(np.float64)))
        tolerance = 40 * UNIT[dtype] + 2**order * abs(true)
        spacing = float(np.finfo(dtype).smallest_subnormal)
        assert (abs(found.astype(np.float64) - true) <= tolerance * abs(true) + 8 * spacing).all()


def test_saturated_layers_keep_their_gradient():
    x, w, b = (np.full(shape, 17, np.float32) for shape in ((1, 1), (1, 1), (1,)))
    w[:], b[:] = 1, 3
    kept = autograd.grad(lambda w: anp.sum(layer_keeping_logits(x, w, b)))(w)
    np.testing.assert_allclose(kept, [[17 * np.exp(-20.0)]], rtol=1e-6)
    assert autograd.grad(lambda w: anp.sum(ag.dense_sigmoid(x, w, b)))(w) == 0


@pytest.mark.parametrize("name", ELEMENTWISE | OF_LAYERS)
def test_float32_stays_float32(name):
    """Where the loss computes in float64, autograd hands float64 gradients down."""
    names, function = (ELEMENTWISE | OF_LAYERS)[name]
    arrays = layer_arrays(LAYER, "float32")
    names = names.split()

    def loss(*given):
        results = function(SimpleNamespace(**arrays | dict(zip(names, given, strict=True))))
        results = results if autograd.isinstance(results, tuple) else [results]
        return sum(anp.sum(np.ones(1) * one) for one in results)

    grads = autograd.grad(loss, tuple(range(len(names))))(*(arrays[one] for one in names))
    for one, grad in zip(names, grads, strict=True):
        assert grad.dtype == np.float32
        assert grad.shape == arrays[one].shape


def test_gradients_belong_to_the_caller():
    """They can be written to, and share no memory with anything that was given."""
    a = operands("float64")
    given = [a.dy, a.y, a.x, a.w]
    before = [one.copy() for one in given]

    def loss(*given):
        return sum(anp.sum(one) for one in ag.dense_sigmoid_backward(*given))

    grads = [
        *autograd.grad(loss, (0, 1, 2, 3))(*given),
        autograd.grad(lambda dy: anp.sum(ag.bias_backward(dy)))(a.dy),
        autograd.grad(lambda z: anp.sum(ag.sigmoid(z)))(a.z),
    ]
    for grad in grads:
        grad *= 2
        assert not any(np.shares_memory(grad, one) for one in given)
    assert all(same_bits(one, old) for one, old in zip(given, before, strict=True))


def test_y_is_not_read_beside_logits():
    a = operands("float64")

    def total(y, z):
        return anp.sum(ag.sigmoid_backward(a.dy, y, z=z)) + 0 * anp.sum(y)

    of_y, of_z = autograd.grad(total, (0, 1))(a.y, a.z)
    assert not of_y.any()
    assert of_z.all()
    with pytest.raises(ShapeError, match=r"^sigmoid_backward: y has shape"):
        autograd.grad(total)(a.y[0], a.z)


# ---- errors


def test_errors_are_gpugrads():
    a = operands("float32")
    narrow = a.w[:-1]
    for message, error, function, given in [
        ("sigmoid: z is a list", DTypeError, ag.sigmoid, ([1.0],)),
        ("sigmoid: z is a float", DTypeError, autograd.grad(ag.sigmoid), (1.0,)),
        ("sigmoid: z has dtype int64", DTypeError, ag.sigmoid, (np.arange(3),)),
        ("bias_backward: dy has shape", ShapeError, ag.bias_backward, (np.float32(1),)),
        ("dense_sigmoid: w has shape", ShapeError, ag.dense_sigmoid, (a.x, narrow)),
        ("dense_sigmoid: w has shape", ShapeError, layer_keeping_logits, (a.x, narrow, a.b)),
        (
            "dense_sigmoid: b has dtype",
            DTypeError,
            layer_keeping_logits,
            (a.x, a.w, a.b.astype("f8")),
        ),
        ("matmul_backward: w has shape", ShapeError, ag.matmul_backward, (a.dy, a.x, narrow)),
        ("sigmoid_backward: y is None", DTypeError, ag.sigmoid_backward, (a.dy, None)),
        ("sigmoid_bias_backward: y has", ShapeError, ag.sigmoid_bias_backward, (a.dy, a.y[0])),
        (
            "dense_sigmoid_backward: y has shape",
            ShapeError,
            ag.dense_sigmoid_backward,
            (a.dy, a.y[0], a.x, a.w),
        ),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            function(*given)
    for save_logits in (False, True):
        with pytest.raises(ArgumentError, match=r"^dense_sigmoid: precision is 'best'"):
            ag.dense_sigmoid(a.x, a.w, precision="best", save_logits=save_logits)
        with pytest.raises(ShapeError, match=r"^dense_sigmoid: w has shape"):
            autograd.grad(
                lambda w, save_logits=save_logits: anp.sum(
                    ag.dense_sigmoid(a.x, w, save_logits=save_logits)
                )
            )(narrow)


@pytest.mark.parametrize(
    ("wrt", "error", "says"),
    [
        (None, DTypeError, "wrt is None"),
        (3, DTypeError, "wrt is 3"),
        ("dw", ArgumentError, "wrt names 'd'"),
        ([["x"]], DTypeError, "wrt is"),
        ((1, "x"), ArgumentError, "wrt names 1"),
    ],
)
def test_bad_wrt(wrt, error, says):
    a = operands("float32")
    with pytest.raises(error, match=f"^matmul_backward: {says}"):
        ag.matmul_backward(a.dy, a.x, a.w, wrt=wrt)
    with pytest.raises(error, match=f"^dense_sigmoid_backward: {says}"):
        ag.dense_sigmoid_backward(a.dy, a.y, a.x, a.w, wrt=wrt)


def test_logits_are_kept_of_numpy_arrays_alone(gpu):
    import cupy

    array = cupy.ones((2, 2))
    with pytest.raises(DTypeError, match=r"^dense_sigmoid: x is a CuPy array, expected a NumPy"):
        ag.dense_sigmoid(array, array, save_logits=True)
    with pytest.raises(TypeError, match=r"Can't differentiate w.r.t. type"):
        autograd.make_vjp(ag.sigmoid)(array)[0](None)


def test_every_function_has_an_example():
    """Which runs, and prints what it says."""
    examples = {one.name for one in doctest.DocTestFinder().find(functions) if one.examples}
    assert examples >= {f"gpugrad.autograd.functions.{name}" for name in OPERATIONS}
    assert doctest.testmod(functions).failed == 0


def test_forward_mode_is_refused():
    with pytest.raises(NotImplementedError, match="JVP of sigmoid wrt argnums"):
        autograd.make_jvp(ag.sigmoid)(np.zeros(3))(np.ones(3))


def test_without_autograd():
    program = """
import sys
sys.modules["autograd"] = None
try:
    import gpugrad.autograd
except ModuleNotFoundError as error:
    print(error.name, error, sep=": ")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "autograd: gpugrad.autograd needs autograd (pip install 'gpugrad[autograd]')\n"
    ), done.stderr
