"""What scripts written for Sequential(Linear, Sigmoid) do with SigmoidLinear."""

import weakref

import pytest

from tests.support.torch_functions import adapter, torch

SigmoidLinear = adapter.SigmoidLinear
pytestmark = pytest.mark.usefixtures("same_tensors")


@pytest.mark.parametrize("bias", [True, False])
def test_the_state_of_the_sequential_loads(bias):
    """At any depth, and with nothing missing or left over."""
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=bias), torch.nn.Sigmoid())
    ours = SigmoidLinear(4, 3, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, theirs[0].weight)
    models = [torch.nn.ModuleDict({"layer": one}) for one in (SigmoidLinear(4, 3, bias), theirs)]
    state = models[1].state_dict()
    models[0].load_state_dict(state)
    assert torch.equal(models[0]["layer"].weight, theirs[0].weight)
    assert list(state) == list(theirs.state_dict(prefix="layer."))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        ours.load_state_dict({**ours.state_dict(), "1.weight": theirs[0].weight})


@pytest.mark.parametrize("logits", [False, True])
def test_frozen_weights_save_no_input(way, logits):
    layer = SigmoidLinear(4, 3, save_logits=logits).requires_grad_(False)
    x = torch.randn(5, 4, requires_grad=True)
    hidden = 2 * x
    kept = weakref.ref(hidden)
    y = layer(hidden)
    del hidden
    assert kept() is None
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    expected = 2 * (y * (1 - y)) @ layer.weight
    torch.testing.assert_close(dx, expected)
    ddx = torch.autograd.grad(dx.square().sum(), x, retain_graph=True)[0]
    torch.testing.assert_close(ddx, torch.autograd.grad(expected.square().sum(), x)[0])


def test_proxies_of_fx_reach_every_function():
    """A graph calls the public function, which can be edited and run."""

    def function(x, w, b, dy):
        y = adapter.sigmoid(adapter.dense_sigmoid(x, w, b))
        return adapter.dense_sigmoid_backward(dy, y, x, w, wrt=("x",))

    graph = torch.fx.symbolic_trace(function)
    called = [one.target for one in graph.graph.nodes if one.op == "call_function"]
    assert called == [adapter.dense_sigmoid, adapter.sigmoid, adapter.dense_sigmoid_backward]
    operands = torch.randn(5, 4), torch.randn(4, 3), torch.randn(3), torch.randn(5, 3)
    assert torch.equal(graph(*operands).dx, function(*operands).dx)


def test_subclasses_of_tensors_stay_what_they_are(way):
    class Named(torch.Tensor):
        pass

    x, layer = torch.randn(5, 4), SigmoidLinear(4, 3)
    y = layer(x.as_subclass(Named))
    assert type(y) is Named
    assert torch.equal(y.as_subclass(torch.Tensor), layer(x))
