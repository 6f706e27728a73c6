"""assert_within_bounds on arrays of every kind, and its messages."""

import numpy as np
import pytest

import gpugrad
from gpugrad.errors import AccuracyError, ArgumentError, DTypeError, ShapeError
from gpugrad.testing import assert_within_bounds, random_operands
from tests.support.operations import OPERATIONS

OP = "matmul_backward"
SIZE = (31, 17, 8)


def right(dtype="float32"):
    operands = random_operands(OP, SIZE, dtype)
    return operands, gpugrad.matmul_backward(**operands, device="cpu")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("form", [tuple, list, dict])
def test_results_in_every_form(name, form):
    operands = random_operands(name, SIZE)
    results = getattr(gpugrad, name)(**operands, device="cpu")
    results = results if isinstance(results, tuple) else (results,)
    given = dict(zip(OPERATIONS[name].results, results, strict=True))
    assert_within_bounds(name, given if form is dict else form(results), **operands)
    if len(results) == 1:
        assert_within_bounds(name, results[0], **operands)


def test_the_message_names_the_element():
    operands, grads = right()
    grads.dw[3, 5] = exact = np.float32(grads.dw[3, 5])
    grads.dw[3, 5] += np.float32(0.25)
    with pytest.raises(AssertionError) as caught:
        assert_within_bounds(OP, grads, **operands)
    assert f"{OP}: dw[3, 5] is {exact + np.float32(0.25):.9g}, exactly " in str(caught.value)
    assert ": its error 0.25 is " in str(caught.value)
    assert " times its bound " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda dx, dw: (dx, None), "dw is None, expected an array"),
        (lambda dx, dw: {"dx": dx}, "dw is None, expected an array"),
        (lambda dx, dw: (dx, dw.T), r"dw has shape \(8, 17\), the exact result \(17, 8\)"),
        (lambda dx, dw: (dx, dw.astype("f8")), "dw has dtype float64, expected float32"),
        (lambda dx, dw: (dx * np.float32(np.nan), dw), "dx.* is nan, exactly"),
    ],
)
def test_what_is_no_result(change, says):
    operands, grads = right()
    with pytest.raises(AccuracyError, match=f"^{OP}: {says}"):
        assert_within_bounds(OP, change(*grads), **operands)


def test_what_wrt_leaves_out():
    operands, grads = right()
    assert_within_bounds(OP, (grads.dx, None), wrt=["x"], **operands)
    with pytest.raises(AccuracyError, match="dw is an array, expected None"):
        assert_within_bounds(OP, grads, wrt=("x",), **operands)


@pytest.mark.parametrize(
    ("error", "says", "arguments"),
    [
        (ArgumentError, "op is 'matmul'", {"op": "matmul"}),
        (ArgumentError, "results are 1, expected dx, dw", {"results": np.zeros(3)}),
        (ArgumentError, r"takes dy, x, w; .*: \['weight'\]", {"weight": np.zeros((2, 2))}),
        (DTypeError, "w is None, expected", {"w": None}),
        (ShapeError, "w has shape", {"w": np.zeros((2, 2), np.float32)}),
        (DTypeError, "dx is a str, expected an array", {"results": ("dx", "dw")}),
    ],
)
def test_arguments_that_cannot_be_used(error, says, arguments):
    operands, grads = right()
    given = {"op": OP, "results": grads, **operands} | arguments
    with pytest.raises(error, match=says):
        assert_within_bounds(**given)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["highest", "high", "medium", "ieee"])
def test_arrays_on_a_gpu(gpu, precision):
    """Of as many planes as their plan has: a result of one plane is wrong for three."""
    import cupy

    operands = {name: cupy.asarray(one) for name, one in random_operands(OP, SIZE).items()}
    grads = gpugrad.matmul_backward(**operands, precision=precision)
    assert_within_bounds(OP, grads, precision=precision, **operands)
    grads.dw[3, 5] *= 1.5
    with pytest.raises(AccuracyError, match=r"dw\[3, 5\]"):
        assert_within_bounds(OP, grads, precision=precision, **operands)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_arrays_of_frameworks(framework):
    name = {"torch": "PyTorch", "jax": "JAX"}[framework]
    module = pytest.importorskip(framework, reason=f"needs {name}")
    array = module.from_numpy if framework == "torch" else module.numpy.asarray
    operands = {one: array(values) for one, values in random_operands(OP, SIZE).items()}
    dx, dw = gpugrad.matmul_backward(**operands)
    assert_within_bounds(OP, (dx, dw), **operands)
    with pytest.raises(AccuracyError, match="times its bound"):
        assert_within_bounds(OP, (dx, 1.01 * dw), **operands)


def test_a_lower_precision_is_told_by_its_planes():
    operands, grads = right()
    coarse = grads.dw.astype(np.float16).astype(np.float32)
    assert_within_bounds(OP, (grads.dx, coarse), planes={"dw": 1}, **operands)
    with pytest.raises(AccuracyError, match="dw"):
        assert_within_bounds(OP, (grads.dx, coarse), planes={}, **operands)
