"""Tensors that calls have read or written stay PyTorch's: their storage can be resized."""

import pytest

import gpugrad
from gpugrad.errors import DTypeError
from tests.support.cases import Layer
from tests.support.operations import OPERATIONS
from tests.support.torch_functions import DIFFERENTIABLE, adapter, given, tensors_of, torch

DTYPES = ["float64", "float32", "float16", "bfloat16"]
pytestmark = pytest.mark.usefixtures("same_tensors")


def expect_resizable(tensors):
    for one in tensors:
        storage = one.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        storage.resize_(size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operands_and_buffers_of_functions(name, dtype):
    operation = OPERATIONS[name]
    tensors = tensors_of(Layer((4,), 3, 2), dtype)
    operands = [tensors[one] for one in operation.operands]
    for _ in range(2):  # the second call is a bound one
        results = getattr(gpugrad, name)(*operands)
        buffers = tuple(torch.zeros_like(one) for one in given(results))
        getattr(gpugrad, name)(*operands, out=buffers if len(buffers) > 1 else buffers[0])
    expect_resizable([*operands, *buffers])


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_of_differentiable_functions(through_operators, dtype):
    for names, function in DIFFERENTIABLE.values():
        tensors = tensors_of(Layer((4,), 3, 2), dtype)
        inputs = [tensors[one].requires_grad_() for one in names]
        sum(one.sum() for one in given(function(*inputs))).backward()
        expect_resizable([one.detach() for one in inputs])


def test_main_grad():
    layer, x = adapter.SigmoidLinear(3, 2, main_grad=True), torch.randn(4, 3)
    layer(x).sum().backward()
    expect_resizable([x, layer.weight.main_grad, layer.bias.main_grad, layer.weight.detach()])


def test_tensors_without_memory_are_refused():
    """Rather than whatever lies at their address."""
    zeros, y = torch._efficientzerotensor((3, 2)), torch.rand(3, 2)
    with pytest.raises(DTypeError, match="dy is a tensor of zeros without memory"):
        gpugrad.sigmoid_backward(zeros, y)
    assert not adapter.sigmoid_backward(zeros, y).any()  # autograd makes and fills them
