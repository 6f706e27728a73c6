"""gradcheck: passes what is right, catches what is wrong, and names what it cannot take."""

import numpy as np
import pytest

import gpugrad
from gpugrad.errors import ArgumentError, DTypeError, GradcheckError

X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
W = np.cos(np.arange(6.0)).reshape(3, 2)


def product(x, w):
    return x @ w


def gradients(u, x, w):
    return u @ w.T, x.T @ u


def test_reports_what_it_did():
    found = gpugrad.gradcheck(product, gradients, [X, W], trials=3, tolerance=1e-9)
    assert found.trials == 3
    assert found.tolerance == 1e-9
    assert 0 <= found.error <= 1e-9


WRONG = {
    "sign": lambda u, x, w: (-(u @ w.T), x.T @ u),
    "factor": lambda u, x, w: (u @ w.T, 1.0001 * (x.T @ u)),
    "one entry": lambda u, x, w: (u @ w.T + 1e-4 * np.eye(4, 3), x.T @ u),
    "missing": lambda u, x, w: (u @ w.T, None),
    "transposed": lambda u, x, w: ((w @ u.T).reshape(x.shape), x.T @ u),
}


def test_results_in_one_buffer_are_not_taken_for_equal_ones():
    value, grad = np.empty(3), np.empty(3)

    def f(z):
        return gpugrad.sigmoid(z, out=value)

    def vjp(u, z):
        u *= np.exp(-z) / (1 + np.exp(-z)) ** 2  # u is the caller's to overwrite
        grad[:] = u
        return grad

    gpugrad.gradcheck(f, vjp, [np.zeros(3)])
    with pytest.raises(GradcheckError):
        gpugrad.gradcheck(f, lambda u, z: np.zeros(3), [np.zeros(3)])


@pytest.mark.parametrize("size", [1e-305, 1e-200, 1e160, 1e290])
def test_sizes_whose_squares_are_no_floats(size):
    gpugrad.gradcheck(lambda z: z * size, lambda u, z: u * size, [np.zeros(3)])
    for wrong in (1e-5, 1.0001, 1e5):
        with pytest.raises(GradcheckError, match="a relative difference of"):
            gpugrad.gradcheck(lambda z: z * size, lambda u, z: u * size * wrong, [np.zeros(3)])  # noqa: B023


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_derivative_that_is_not_finite_fails(value):
    with pytest.raises(GradcheckError, match="trial 0: vjp's gradient is not finite"):
        gpugrad.gradcheck(product, lambda u, x, w: (u @ w.T, x.T @ u + value), [X, W])
    with pytest.raises(GradcheckError, match="trial 0: f's finite difference is not finite"):
        gpugrad.gradcheck(lambda x: x + value, lambda u, x: u, [X])


def test_a_derivative_that_overflows_fails():
    with pytest.raises(GradcheckError, match="f's finite difference is not finite"):
        gpugrad.gradcheck(lambda x: np.sign(x) * 1e308, lambda u, x: 0 * u, [np.zeros(3)])


def test_inputs_may_come_from_a_generator():
    assert gpugrad.gradcheck(product, gradients, (one for one in (X, W))).trials == 4


@pytest.mark.parametrize("wrong", WRONG)
def test_catches_a_wrong_gradient(wrong):
    with pytest.raises(GradcheckError, match=r"^gradcheck: trial \d"):
        gpugrad.gradcheck(product, WRONG[wrong], [X, W])


def test_none_stands_for_zero():
    gpugrad.gradcheck(lambda x, w: 2 * x, lambda u, x, w: (2 * u, None), [X, W])


def test_a_single_input_may_have_a_bare_gradient():
    gpugrad.gradcheck(np.sin, lambda u, x: u * np.cos(x), [X])


def test_functions_with_several_results():
    gpugrad.gradcheck(
        lambda x: (x, np.sin(x).sum(axis=0)), lambda u, x: u[0] + u[1] * np.cos(x), [X]
    )


@pytest.mark.parametrize("scalar", [float, np.float64, np.asarray])
def test_a_loss_that_is_a_number(scalar):
    def loss(x):
        return scalar(np.sum(x**2))

    gpugrad.gradcheck(loss, lambda u, x: u * 2 * x, [X])
    with pytest.raises(GradcheckError):
        gpugrad.gradcheck(loss, lambda u, x: u * 3 * x, [X])


def test_empty_arrays_have_nothing_to_get_wrong():
    empty = np.empty((0, 3))
    assert gpugrad.gradcheck(lambda x: x, lambda u, x: u, [empty]).error == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"inputs": []}, ArgumentError, "inputs is empty"),
        ({"inputs": X}, DTypeError, "inputs is an array, expected a sequence of arrays"),
        ({"inputs": None}, DTypeError, "inputs is a NoneType, expected a sequence of arrays"),
        ({"trials": 0}, ArgumentError, "trials is 0"),
        ({"trials": "4"}, DTypeError, "trials is a str, expected an integer"),
        ({"trials": 4.0}, DTypeError, "trials is a float, expected an integer"),
        ({"step": 0}, ArgumentError, "step is 0, expected a positive finite number"),
        ({"step": "1"}, ArgumentError, "step is '1', expected"),
        ({"tolerance": -1.0}, ArgumentError, "tolerance is -1.0, expected"),
        ({"tolerance": float("nan")}, ArgumentError, "tolerance is nan, expected"),
        ({"tolerance": np.inf}, ArgumentError, "tolerance is inf, expected"),
        ({"inputs": [X, W.astype("f4")]}, DTypeError, r"inputs\[1\] has dtype float32"),
        ({"inputs": [X.tolist(), W]}, DTypeError, r"inputs\[0\] is a list"),
        ({"inputs": [X, None]}, DTypeError, r"inputs\[1\] is a NoneType"),
        ({"inputs": [X, np.ma.masked_array(W)]}, DTypeError, r"inputs\[1\] is a masked array"),
        ({"f": lambda x, w: 1j * x @ w}, DTypeError, "f's result is no array of real numbers"),
        ({"f": lambda x, w: "?"}, DTypeError, "f's result is no array of real numbers"),
        ({"vjp": lambda u, x, w: (x, 1j * w)}, DTypeError, "vjp's gradient is no array of real"),
        ({"vjp": lambda u, x, w: u}, ArgumentError, "vjp gave 1 gradients for 2 inputs"),
        ({"vjp": lambda u, x, w: (x, x)}, ArgumentError, "vjp's gradient 1 has shape"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=f"^gradcheck: {says}"):
        gpugrad.gradcheck(**{"f": product, "vjp": gradients, "inputs": [X, W]} | arguments)
