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
    "not a number": lambda u, x, w: (u @ w.T, x.T @ u * np.nan),
    "transposed": lambda u, x, w: ((w @ u.T).reshape(x.shape), x.T @ u),
}


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
        ({"trials": 0}, ArgumentError, "trials is 0"),
        ({"inputs": [X, W.astype("f4")]}, DTypeError, r"inputs\[1\] has dtype float32"),
        ({"inputs": [X.tolist(), W]}, DTypeError, r"inputs\[0\] is a list"),
        ({"inputs": [X, None]}, DTypeError, r"inputs\[1\] is a NoneType"),
        ({"inputs": [X, np.ma.masked_array(W)]}, DTypeError, r"inputs\[1\] is a masked array"),
        ({"vjp": lambda u, x, w: u}, ArgumentError, "vjp gave 1 gradients for 2 inputs"),
        ({"vjp": lambda u, x, w: (x, x)}, ArgumentError, "vjp's gradient 1 has shape"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=f"^gradcheck: {says}"):
        gpugrad.gradcheck(**{"f": product, "vjp": gradients, "inputs": [X, W]} | arguments)
