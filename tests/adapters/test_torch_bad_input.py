"""Tensors that gpugrad.torch refuses, in PyTorch's usual exceptions, and odd ones that it takes."""

from importlib import import_module

import pytest

from gpugrad.errors import DeviceError, DTypeError, ShapeError
from tests.support.cases import Layer
from tests.support.torch_functions import (
    DIFFERENTIABLE,
    WARNINGS,
    adapter,
    given,
    operator_calls,
    tensors_of,
    torch,
)

small_layers = import_module("gpugrad.torch.small_layers")
pytestmark = [*WARNINGS, pytest.mark.usefixtures("same_tensors")]


def nested(tensor):
    return torch.nested.nested_tensor(list(tensor))


def quantized(tensor):
    return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


BAD = {
    "sparse": (lambda one: one.to_sparse(), RuntimeError, "Could not run .*Sparse"),
    "compressed": (lambda one: one.to_sparse_csr(), RuntimeError, "Could not run .*SparseCsr"),
    "mkldnn": (lambda one: one.to_mkldnn(), RuntimeError, "Could not run .*Mkldnn"),
    "quantized": (quantized, RuntimeError, "Could not run .*Quantized"),
    "nested": (nested, RuntimeError, "Could not run .*Nested"),
    "complex": (lambda one: one.to(torch.complex64), DTypeError, "has dtype complex64"),
    "integers": (lambda one: one.int(), DTypeError, "has dtype int32"),
    "booleans": (lambda one: one.bool(), DTypeError, "has dtype bool"),
    "8 bits": (lambda one: one.to(torch.float8_e5m2), DTypeError, "has dtype float8_e5m2"),
    "another dtype": (lambda one: one.double(), DTypeError, "has dtype float(32|64), expected"),
    "half of it": (lambda one: one.half(), DTypeError, "has dtype float(16|32), expected"),
    "on another device": (lambda one: one.to("meta"), DeviceError, "is on device (meta|cpu)"),
    "a row less": (lambda one: one[1:], ShapeError, "has shape"),
    "a column less": (lambda one: one[:, 1:], ShapeError, "has shape"),
    "a number": (lambda one: one[0, 0], ShapeError, "has shape"),
    "another rank": (lambda one: one[None, None], ShapeError, "has shape"),
    "a list": (lambda one: one.tolist(), DTypeError, "is a list, expected a PyTorch tensor"),
    "an array": (lambda one: one.numpy(), DTypeError, "is a ndarray, expected a PyTorch tensor"),
    "nothing": (lambda one: None, DTypeError, "is None, expected a PyTorch tensor"),
}
RELATIONS = (ShapeError, DeviceError)  # what is wrong only beside other operands


def is_bad(what, operand, names):
    """Return whether it is wrong for an operand: another extent may make another layer."""
    alone = BAD[what][1] in RELATIONS or what in ("another dtype", "half of it")
    return {
        "a row less": operand == "w",
        "a column less": operand != "w",
        "another rank": operand in ("w", "weight"),
    }.get(what, True) and not (alone and len(names) == 1)


@pytest.mark.parametrize("what", BAD)
def test_bad_input(way, what):
    spoil, error, says = BAD[what]
    for names, function in DIFFERENTIABLE.values():
        tensors = tensors_of(Layer((4,), 3, 2), "float32")
        good = [tensors[one] for one in names]
        before = [one.clone() for one in good]
        for i, operand in enumerate(names):
            if good[i].dim() == 2 and is_bad(what, operand, names):
                arguments = [*good[:i], spoil(good[i]), *good[i + 1 :]]
                with pytest.raises(error, match=says) as raised:
                    function(*arguments)
                assert isinstance(raised.value, RuntimeError)
        assert all(map(torch.equal, good, before))


def test_bad_bias(way):
    """None of PyTorch's broadcasting."""
    x, weight = torch.randn(4, 3), torch.randn(2, 3)
    for logits in (False, True):
        for bias in (torch.randn(1), torch.tensor(1.0), torch.randn(4, 2), torch.randn(3)):
            with pytest.raises(ShapeError, match=r"b has shape .*, expected \(2,\)"):
                adapter.sigmoid_linear(x, weight, bias, save_logits=logits)
        for bias in (torch.randn(2).double(), torch.ones(2, dtype=torch.int32)):
            with pytest.raises(DTypeError, match="b has dtype"):
                adapter.sigmoid_linear(x, weight, bias, save_logits=logits)


def test_fakes_raise_what_kernels_raise(through_operators):
    x, w, b, dy = torch.randn(4, 3), torch.randn(3, 2), torch.randn(2), torch.randn(4, 2)
    for function, arguments in [
        (adapter.dense_sigmoid, (x, w.t(), b)),
        (adapter.dense_sigmoid, (x, w, b[:1])),
        (adapter.dense_sigmoid, (x[0, 0], w, b)),
        (adapter.dense_sigmoid, (x, w[0], b)),
        (adapter.dense_sigmoid, (x, w.double(), b)),
        (adapter.dense_sigmoid, (x.int(), w, b)),
        (adapter.bias_backward, (x[0, 0],)),
        (adapter.sigmoid_backward, (dy, dy[:1])),
        (adapter.sigmoid_bias_backward, (dy[0, 0], dy[0, 0])),
        (adapter.matmul_backward, (x, x, w)),
        (adapter.dense_sigmoid_backward, (dy, dy[:1], x, w)),
        (adapter.dense_sigmoid_backward, (dy, dy.half(), x, w)),
    ]:
        said = []
        for device in ("cpu", "meta"):
            with pytest.raises(RuntimeError) as raised:
                function(*(one.to(device) for one in arguments))
            said.append((type(raised.value), str(raised.value)))
        assert said[0] == said[1]


def test_options_are_checked():
    x, w = torch.randn(4, 3), torch.randn(3, 2)
    for attempt, says in [
        (lambda: adapter.dense_sigmoid(x, w, precision="low"), "precision is 'low', expected one"),
        (lambda: adapter.SigmoidLinear(3, 2, precision="low"), "precision is 'low', expected one"),
        (lambda: adapter.matmul_backward(x @ w, x, w, wrt=("b",)), "wrt names 'b', expected some"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=says) as raised:
            attempt()
        assert isinstance(raised.value, RuntimeError)
        assert isinstance(raised.value, ValueError)


def test_tensors_of_any_strides(way):
    """Expanded, transposed, negated, sliced, backwards in memory: the values count."""
    x = torch.randn(4, 3)
    w, b = torch.randn(3, 2), torch.randn(2)
    negated = torch.complex(x, x).conj().imag
    assert negated.is_neg()
    wider = torch.zeros(9, 7)
    wider[1::2, 1::2] = x
    for logits in (False, True):
        for other in (x.t().contiguous().t(), wider[1::2, 1::2], negated, x[:1].expand(4, 3)):
            y = adapter.dense_sigmoid(other, w, b, save_logits=logits)
            plain = adapter.dense_sigmoid(other.clone(), w, b, save_logits=logits)
            torch.testing.assert_close(y, plain, rtol=1e-6, atol=0)
            turned = adapter.sigmoid_linear(other, w.t(), b, save_logits=logits)
            torch.testing.assert_close(turned, plain, rtol=1e-6, atol=0)
    dy = torch.ones(()).expand(4, 2)
    y = torch.sigmoid(x @ w)
    assert torch.equal(adapter.sigmoid_backward(dy, y), adapter.sigmoid_backward(dy.clone(), y))


def test_numbers():
    """Tensors without dimensions."""
    z = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for _ in range(2):  # new, and seen before
        y = adapter.sigmoid(z)
        assert (y.shape, y.dtype) == ((), torch.float64)
    assert torch.autograd.gradcheck(adapter.sigmoid, z)
    assert torch.autograd.gradgradcheck(adapter.sigmoid, z)


def test_results_share_no_memory_with_inputs():
    for layer in (Layer((), 3, 2), Layer((1,), 1, 1), Layer((2,), 3, 4)):
        for name, arguments in operator_calls(layer):
            inputs = [one for one in arguments if isinstance(one, torch.Tensor)]
            results = [
                one for one in given(getattr(torch.ops.gpugrad, name)(*arguments)) if one.numel()
            ]
            at = [one.untyped_storage().data_ptr() for one in (*inputs, *results)]
            assert len(set(at[len(inputs) :])) == len(results)
            assert not set(at[: len(inputs)]) & set(at[len(inputs) :])
