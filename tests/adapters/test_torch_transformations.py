"""SigmoidLinear under each of PyTorch's transformations, beside Linear and Sigmoid."""

import copy
from functools import partial
from importlib import import_module

import pytest

from tests.support.torch_functions import WARNINGS, adapter, torch

func, forward_ad = torch.func, torch.autograd.forward_ad
pytestmark = [*WARNINGS, pytest.mark.usefixtures("same_tensors")]
TRANSFORMATIONS = {}


def transformation(function):
    TRANSFORMATIONS[function.__name__] = function
    return function


def of_parameters(net):
    """The net as a function of x and its parameters."""
    names = [name for name, _ in net.named_parameters()]

    def function(x, *parameters):
        return func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,))

    return function, [one.detach().clone() for one in net.parameters()]


def loss(net, x, *parameters):
    function, own = of_parameters(net)
    return function(x, *(parameters or own)).square().sum()


@transformation
def jvp(net, x):
    function, parameters = of_parameters(net)
    inputs = (x, *parameters)
    return func.jvp(function, inputs, tuple(one.cos() for one in inputs))


@transformation
def jvp_of_x(net, x):
    return func.jvp(net, (x,), (x.cos(),))


@transformation
def jvp_of_the_bias(net, x):
    function, (weight, bias) = of_parameters(net)
    return func.jvp(partial(function, x, weight), (bias,), (bias.cos(),))


@transformation
def jvp_of_jvp(net, x):
    return func.jvp(lambda x: func.jvp(net, (x,), (x.cos(),))[1], (x,), (x.sin(),))


@transformation
def forward_ad_dual(net, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, x.cos()))).tangent


@transformation
def jacfwd(net, x):
    return func.jacfwd(net)(x[:2])


@transformation
def jacrev(net, x):
    return func.jacrev(net)(x[:2])


@transformation
def grad(net, x):
    _, parameters = of_parameters(net)
    return func.grad(partial(loss, net), argnums=(0, 1, 2))(x, *parameters)


@transformation
def vjp(net, x):
    function, parameters = of_parameters(net)
    y, pull = func.vjp(function, x, *parameters)
    return pull(y.cos())


@transformation
def hessian(net, x):
    _, parameters = of_parameters(net)
    return func.hessian(partial(loss, net, x[:3]), argnums=(0, 1))(*parameters)


@transformation
def jacrev_of_jacrev(net, x):
    return func.jacrev(func.jacrev(partial(loss, net)))(x[:2])


@transformation
def forward_over_reverse(net, x):
    gradient = func.grad(partial(loss, net))
    return func.jvp(gradient, (x,), (x.cos(),))


@transformation
def vmap_of_rows(net, x):
    return func.vmap(net)(x), func.vmap(net, in_dims=1, out_dims=1)(x.expand(3, *x.shape))


@transformation
def vmap_of_weights(net, x):
    function, parameters = of_parameters(net)
    stacked = [torch.stack([one, 2 * one]) for one in parameters]
    return (
        func.vmap(function, in_dims=(None, 0, 0))(x, *stacked),
        func.vmap(function, in_dims=(None, None, 0))(x, parameters[0], stacked[1]),
        func.vmap(function, in_dims=(0, 0, 0))(torch.stack([x, -x]), *stacked),
    )


@transformation
def gradients_of_each_row(net, x):
    _, parameters = of_parameters(net)
    gradient = func.grad(partial(loss, net), argnums=(1, 2))
    return func.vmap(gradient, in_dims=(0, None, None))(x, *parameters)


@transformation
def batched_gradients(net, x):
    y, inputs = net(x.requires_grad_()), [x, *net.parameters()]
    basis = torch.eye(y.numel(), dtype=x.dtype).reshape(-1, *y.shape)
    return torch.autograd.grad(y, inputs, basis, is_grads_batched=True)


@transformation
def double_backward(net, x):
    inputs = [x.requires_grad_(), *net.parameters()]
    first = torch.autograd.grad(net(x).square().sum(), inputs, create_graph=True)
    return torch.autograd.grad(sum(one.square().sum() for one in first), inputs)


def compiled(function, *inputs):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs)


@transformation
def compile(net, x):  # noqa: A001
    y = compiled(net, x.requires_grad_())
    return y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()])


@transformation
def compile_of_grad(net, x):
    return compiled(func.grad(lambda x: net(x).square().sum()), x)


@transformation
def compile_of_jvp(net, x):
    return compiled(lambda x: func.jvp(net, (x,), (x.cos(),)), x)


@transformation
def export(net, x):
    program = torch.export.export(net, (x,))
    assert "gpugrad" not in str(program.graph)  # it runs without
    return program.module()(x)


@transformation
def symbolic_trace(net, x):
    return torch.fx.symbolic_trace(net)(x)


@transformation
def jit_trace(net, x):
    return torch.jit.trace(net, x)(2 * x)


@transformation
def checkpoint(net, x):
    y = torch.utils.checkpoint.checkpoint(net, x.requires_grad_(), use_reentrant=False)
    return y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()])


@transformation
def hooks(net, x):
    seen = []
    net.register_full_backward_hook(lambda module, dx, dy: seen.extend((*dx, *dy)))
    net(x.requires_grad_()).square().sum().backward()
    return seen


@transformation
def parametrization(net, x):
    layer = net[0] if isinstance(net, torch.nn.Sequential) else net
    torch.nn.utils.parametrizations.weight_norm(layer)
    y = net(x)
    return y, *torch.autograd.grad(y.square().sum(), list(net.parameters()))


@transformation
def meta(net, x):
    y = net.to("meta")(x.to("meta").requires_grad_())
    y.sum().backward()
    return [str(one.device) + str(one.shape) for one in (y, *(p.grad for p in net.parameters()))]


@transformation
def input_keyword(net, x):
    return net(input=x)


@transformation
def made_in_inference_mode(net, x):
    with torch.inference_mode():
        made = copy.deepcopy(net)
        inside = made(x)
    with torch.no_grad():
        return inside + 0, made(x), made(made(x)[:, :1].expand(len(x), x.shape[1]))


@transformation
def flops(net, x):
    with import_module("torch.utils.flop_counter").FlopCounterMode(display=False) as counter:
        net(x.requires_grad_()).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("logits", [False, True], ids=["y", "logits"])
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_beside_linear_and_sigmoid(request, name, size, logits):
    """The same abilities, whatever the size: layers count as large from one multiply-add on."""
    if size == "large":
        request.getfixturevalue("through_operators")
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid()).double()
    ours = adapter.SigmoidLinear(4, 3, dtype=torch.float64, save_logits=logits)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 4, dtype=torch.float64)
    results = [TRANSFORMATIONS[name](net, x.clone()) for net in (ours, theirs)]
    if name == "meta":
        assert results[0] == results[1]
    else:
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_a_layer_that_is_large():
    """2²⁶ multiply-adds, from which on PyTorch's own functions are not used."""
    layer = adapter.SigmoidLinear(64, 64, dtype=torch.float64)
    x = torch.randn(1 << 14, 64, dtype=torch.float64)
    assert "gpugrad" in type(layer(x).grad_fn).__name__
    direction = x.cos()
    y, tangent = func.jvp(layer, (x,), (direction,))
    gradient = func.grad(lambda x: layer(x).square().sum())(x)
    torch.testing.assert_close(  # both are the derivative of Σ y² along the direction
        (2 * y * tangent).sum(), (gradient * direction).sum(), rtol=1e-10, atol=1e-8
    )
    torch.testing.assert_close(func.vmap(layer)(x[None])[0], y, rtol=1e-12, atol=1e-12)
