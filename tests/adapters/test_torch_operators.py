"""gpugrad's functions of PyTorch tensors: values, and gradients of any order."""

import doctest
from importlib import import_module

import numpy as np
import pytest

import gpugrad
from gpugrad.testing import reference, worst_element
from tests.adapters.test_frameworks import array_of
from tests.support.cases import LAYERS, Layer, layer_arrays
from tests.support.operations import OPERATIONS
from tests.support.torch_functions import (
    DEVICES,
    DIFFERENTIABLE,
    FORWARD,
    adapter,
    given,
    subsets,
    tensors_of,
    torch,
)

small_layers = import_module("gpugrad.torch.small_layers")
SMALL = (Layer((), 3, 2), Layer((2, 2), 3, 2))  # every entry of their Jacobians is checked
OTHERS = tuple(  # random projections of them
    layer for layer in LAYERS if str(layer) in ("1x1x1", "31x33x1", "33x1x31")
)
EMPTY = (Layer((2, 0), 2, 3), Layer((2,), 0, 3), Layer((2,), 2, 0))


# ---- gradients of first and second order


def gradchecks(name, layer, device="cpu", *, wanted=None, fast=False):
    names, function = DIFFERENTIABLE[name]
    tensors = tensors_of(layer, device=device)
    inputs = [tensors[one].requires_grad_(wanted is None or one in wanted) for one in names]

    def outputs(*inputs):
        return given(function(*inputs))

    def loss(*inputs):
        return sum((i * one).sum() for i, one in enumerate(outputs(*inputs), 1))

    for one in (outputs, loss):  # each result on its own, and all in one backward pass
        assert torch.autograd.gradcheck(one, inputs, fast_mode=fast)
        assert torch.autograd.gradgradcheck(one, inputs, fast_mode=fast)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layer", SMALL, ids=str)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(through_operators, name, layer, device):
    gradchecks(name, layer, device)


@pytest.mark.parametrize("layer", SMALL, ids=str)
@pytest.mark.parametrize("name", [one for one in FORWARD if "logits" not in one])
def test_gradients_of_small_layers(name, layer):
    gradchecks(name, layer)


@pytest.mark.parametrize("layer", [*OTHERS, *EMPTY], ids=str)
def test_gradients_of_other_extents(through_operators, layer):
    for name in DIFFERENTIABLE:
        gradchecks(name, layer, fast=layer in OTHERS)


@pytest.mark.parametrize("name", FORWARD)
def test_gradients_of_any_inputs(way, name):
    for wanted in subsets(DIFFERENTIABLE[name][0]):
        gradchecks(name, SMALL[0], wanted=wanted)


@pytest.mark.parametrize(
    "name", ["matmul_backward xw", "dense_sigmoid_backward xwb from y", "sigmoid_backward from z"]
)
def test_second_gradients_of_any_inputs(name):
    for wanted in subsets(DIFFERENTIABLE[name][0]):
        gradchecks(name, SMALL[0], wanted=wanted, fast=True)


@pytest.mark.parametrize("name", ["dense_sigmoid", "dense_sigmoid, logits", "sigmoid"])
def test_third_derivatives(through_operators, name):
    names, function = DIFFERENTIABLE[name]
    tensors = tensors_of(Layer((2,), 2, 2))
    inputs = [tensors[one].div_(4).requires_grad_() for one in names]

    def gradients(*inputs):
        loss = function(*inputs).square().sum()
        return torch.autograd.grad(loss, inputs, create_graph=True)

    assert torch.autograd.gradgradcheck(gradients, inputs)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", [one for one in DIFFERENTIABLE if "linear" not in one])
def test_second_derivatives_keep_dtype_and_device(through_operators, name, dtype):
    names, function = DIFFERENTIABLE[name]
    tensors = tensors_of(SMALL[1], dtype)
    inputs = [tensors[one].requires_grad_() for one in names]

    def gradients(outputs, inputs):
        loss = sum(one.square().sum() for one in outputs)
        return torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)

    first = gradients(given(function(*inputs)), inputs)
    for one, second in zip(inputs, gradients(first, inputs), strict=True):
        assert (second.dtype, second.shape) == (one.dtype, one.shape)


def test_what_has_no_gradient_is_not_computed(through_operators, monkeypatch):
    """Frozen weights cost no product, in the first order and in the second."""
    operators = import_module("gpugrad.torch.operators")
    asked = []

    def spy(function, *tensors, wrt=None, **options):
        asked.append(wrt)
        return call(function, *tensors, **options, **({} if wrt is None else {"wrt": wrt}))

    call = operators.call
    monkeypatch.setattr(operators, "call", spy)
    tensors = tensors_of(SMALL[1])
    x, w = tensors["x"].requires_grad_(), tensors["w"]
    y = adapter.dense_sigmoid(x, w, tensors["b"])
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert asked == [None, ("x",)]
    torch.autograd.grad(dx.sum(), x)
    assert not any(wrt is not None and "w" in wrt for wrt in asked[2:])


@pytest.mark.parametrize("options", [{}, {"save_logits": True}, {"main_grad": True}], ids=str)
def test_precision_is_passed_on(through_operators, monkeypatch, options):
    """From the module to every product, of the first order and of the second."""
    asked = []

    def spy_on(function):
        def spy(*arrays, precision="highest", **others):
            asked.append(precision)
            return function(*arrays, precision=precision, **others)

        spy.__name__ = function.__name__
        return spy

    for name in ("dense_sigmoid", "dense_sigmoid_backward", "matmul_backward"):
        monkeypatch.setattr(gpugrad, name, spy_on(getattr(gpugrad, name)))
    layer = adapter.SigmoidLinear(3, 2, precision="ieee", **options)
    x = torch.randn(4, 3, requires_grad=True)
    second = not options.get("main_grad")
    (dx,) = torch.autograd.grad(layer(x).sum(), x, create_graph=second)
    if second:
        dx.square().sum().backward()
    assert len(asked) >= 2
    assert set(asked) == {"ieee"}


# ---- values


def within_bounds(results, answers):
    for name, result in results.items():
        ratio = worst_element(array_of(torch, result.detach()), answers[name]).ratio
        assert ratio <= 1, f"{name} is {ratio:.3g} times its bound away"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layer", [one for one in LAYERS if not one.big], ids=str)
def test_layers_are_within_the_derived_bounds(way, layer, dtype):
    """Forward and, from the y that came out, backward."""
    arrays = layer_arrays(layer, dtype)
    tensors = tensors_of(layer, dtype)
    x, w, b = (tensors[one].requires_grad_() for one in ("x", "w", "b"))
    y = adapter.dense_sigmoid(x, w, b)
    answer = reference("dense_sigmoid", **{one: arrays[one] for one in ("x", "w", "b")})["y"]
    if way == "pytorch" and dtype == "float32":  # it gives 0 below the smallest normal number
        answer = answer._replace(bound=answer.bound + 2.0**-126)
    within_bounds({"y": y}, {"y": answer})
    dx, dw, db = torch.autograd.grad(y, (x, w, b), tensors["dy"])
    operands = {one: arrays[one] for one in ("dy", "x", "w")}
    answers = reference("dense_sigmoid_backward", y=array_of(torch, y.detach()), **operands)
    within_bounds({"dx": dx, "dw": dw, "db": db}, answers)


def in_pytorch(name, dy, y, x, w):
    """The same gradients by PyTorch's own functions."""
    dz = dy if "sigmoid" not in name else torch.ops.aten.sigmoid_backward(dy, y)
    rows, of_x = dz.reshape(-1, dz.shape[-1]), x.reshape(-1, x.shape[-1])
    return {"dz": dz, "db": rows.sum(0), "dx": dz @ w.t(), "dw": of_x.t() @ rows}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", [one for one in OPERATIONS if "backward" in one])
def test_gradients_beside_pytorchs(name, dtype, device):
    """PyTorch's, in float32 of the same values: both bounds added."""
    operation, layer = OPERATIONS[name], Layer((37,), 41, 43)
    arrays, tensors = layer_arrays(layer, dtype), tensors_of(layer, dtype, device)
    operands = {one: arrays[one] for one in operation.operands}
    ours = getattr(adapter, name)(*(tensors[one] for one in operation.operands))
    ours = dict(zip(operation.results, given(ours), strict=True))
    theirs = in_pytorch(name, *(tensors[one].float() for one in ("dy", "y", "x", "w")))
    planes = gpugrad.plan(name, *(tensors[one] for one in operation.operands)).planes
    answers = reference(name, planes=planes, **operands)
    of_theirs = reference(name, **{one: array.astype("float32") for one, array in operands.items()})
    for one, result in ours.items():
        distance = array_of(torch, result.double() - theirs[one].double())
        assert (np.abs(distance) <= answers[one].bound + of_theirs[one].bound).all()


@pytest.fixture(params=["older", "newer"])
def less_than_float32(request, monkeypatch):
    """PyTorch may round products: by its older setting, or by a newer, which hides the older."""
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if request.param == "older" or products is None:
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    yield
    products.fp32_precision = before


def test_products_that_pytorch_may_round_are_not_left_to_it(less_than_float32):
    tensors = tensors_of(Layer((5,), 4, 3), "float32")
    x, w, b = (tensors[one].requires_grad_() for one in ("x", "w", "b"))
    for y in (adapter.dense_sigmoid(x, w, b), adapter.sigmoid_linear(x, w.t(), b)):
        assert "gpugrad" in type(y.grad_fn).__name__


def test_small_layers_are_left_to_pytorch():
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, 2)
    assert type(adapter.dense_sigmoid(x, w).grad_fn).__name__ == "SigmoidBackward0"


def test_the_backward_pass_reads_w_where_it_is(through_operators, monkeypatch):
    """And leaves the gradient in its memory order, so that weight's is contiguous and kept."""
    compute = {one: getattr(gpugrad, one) for one in ("dense_sigmoid", "dense_sigmoid_backward")}
    weight, x = torch.nn.Parameter(torch.randn(5, 3)), torch.randn(4, 3, requires_grad=True)
    seen, made = [], []

    def forward(x, w, *arguments, **options):
        seen.append((w.ctypes.data, w.strides))
        return compute["dense_sigmoid"](x, w, *arguments, **options)

    def backward(dy, y, x, w, **options):
        seen.append((w.ctypes.data, w.strides))
        grads = compute["dense_sigmoid_backward"](dy, y, x, w, **options)
        made.append(grads.dw.ctypes.data)
        return grads

    monkeypatch.setattr(gpugrad, "dense_sigmoid", forward)
    monkeypatch.setattr(gpugrad, "dense_sigmoid_backward", backward)
    adapter.sigmoid_linear(x, weight).sum().backward()
    assert seen == [(weight.data_ptr(), (4, 12))] * 2
    assert weight.grad.is_contiguous()
    assert weight.grad.data_ptr() == made[0]


@pytest.mark.parametrize("name", ["gpugrad.torch.functions", "gpugrad.torch.modules"])
def test_examples(name):
    result = doctest.testmod(import_module(name))
    assert result.attempted
    assert result.failed == 0
