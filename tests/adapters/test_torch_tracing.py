"""gpugrad's PyTorch operators without data, compiled, exported, and under function transforms."""

import itertools
from importlib import import_module

import pytest

from tests.conftest import needs_compiler
from tests.support.cases import LAYERS, Layer
from tests.support.torch_functions import (
    DEVICES,
    DIFFERENTIABLE,
    WARNINGS,
    adapter,
    described,
    given,
    operator_calls,
    tensors_of,
    torch,
)

small_layers = import_module("gpugrad.torch.small_layers")
pytestmark = [*WARNINGS, pytest.mark.usefixtures("same_tensors")]


# ---- without data


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ["C", "F", "sliced"])
@pytest.mark.parametrize("layer", [one for one in LAYERS if not one.big], ids=str)
def test_fake_results_are_like_real_ones(layer, order, device):
    """In strides, too, and for calls that have been seen before."""
    for dtype in ("float64", "bfloat16"):
        for name, arguments in operator_calls(layer, dtype, order, device):
            operator = getattr(torch.ops.gpugrad, name)
            real = described(operator(*arguments))
            assert described(operator(*arguments)) == real
            with torch._subclasses.FakeTensorMode() as mode:
                fakes = [
                    mode.from_tensor(one) if isinstance(one, torch.Tensor) else one
                    for one in arguments
                ]
                assert described(operator(*fakes)) == real, name


def opcheck(name, arguments):
    torch.library.opcheck(getattr(torch.ops.gpugrad, name).default, arguments)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    for name, arguments in operator_calls(Layer((2, 3), 4, 5), device=device):
        inputs = (
            one.detach().requires_grad_() if isinstance(one, torch.Tensor) else one
            for one in arguments
        )
        opcheck(name, tuple(inputs))


@pytest.mark.parametrize(
    ("layer", "dtype", "order"),
    [
        (Layer((2, 3), 4, 5), "float64", "F"),
        (Layer((3, 0), 2, 2), "float64", "C"),
        (Layer((3,), 2, 2), "bfloat16", "C"),
    ],
    ids=["fortran", "empty", "bfloat16"],
)
def test_opcheck_of_other_operands(layer, dtype, order):
    for name, arguments in operator_calls(layer, dtype, order):
        if not any(one is None or one is False for one in arguments):
            opcheck(name, arguments)


def test_meta_tensors(way):
    layer = adapter.SigmoidLinear(3, 2, device="meta")
    y = layer(torch.empty(5, 4, 3, device="meta", requires_grad=True))
    assert (y.shape, y.device.type) == ((5, 4, 2), "meta")
    y.sum().backward()
    assert layer.weight.grad.shape == (2, 3)


# ---- compilation


def fresh_inputs(name, layer, dtype="float32"):
    tensors = tensors_of(layer, dtype)
    return [tensors[one].clone().requires_grad_() for one in DIFFERENTIABLE[name][0]]


def value_and_gradients(function, inputs):
    results = given(function(*inputs))
    loss = sum((one * (1 + one)).sum() for one in results)
    return [*results, *torch.autograd.grad(loss, inputs, materialize_grads=True)]


@pytest.fixture
def new_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_compiled_functions(through_operators, new_compiler, name):
    """In one graph, with the same bits as without."""
    function = DIFFERENTIABLE[name][1]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours = value_and_gradients(compiled, fresh_inputs(name, Layer((2, 3), 4, 5)))
    eager = value_and_gradients(function, fresh_inputs(name, Layer((2, 3), 4, 5)))
    for one, other in zip(ours, eager, strict=True):
        if "backward" in name:  # whose gradients PyTorch may contract
            torch.testing.assert_close(one, other)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["dense_sigmoid", "sigmoid_linear, logits", "sigmoid"])
def test_compiled_once_for_any_extents(through_operators, new_compiler, name):
    function = DIFFERENTIABLE[name][1]
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    for layer in (Layer((3,), 4, 5), Layer((7,), 6, 9), Layer((2,), 8, 3)):
        ours = value_and_gradients(compiled, fresh_inputs(name, layer))
        eager = value_and_gradients(function, fresh_inputs(name, layer))
        assert all(map(torch.equal, ours, eager))
    assert counter.frame_count == 1


def test_compiled_by_inductor(new_compiler, monkeypatch, tmp_path):
    needs_compiler()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        adapter.SigmoidLinear(6, 5), adapter.SigmoidLinear(5, 2, save_logits=True)
    )
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(7, 6)
    for one, other in zip(*(_gradients(net, model, x) for net in (compiled, model)), strict=True):
        torch.testing.assert_close(one, other)


def _gradients(net, model, x):
    model.zero_grad()
    net(x).square().sum().backward()
    return [one.grad.clone() for one in model.parameters()]


def test_what_compilation_cannot_do_is_said(new_compiler):
    x, weight = torch.randn(4, 3), torch.randn(2, 3, requires_grad=True)

    def with_main_grad(x):
        return adapter.sigmoid_linear(x, weight, main_grad=True)

    compiled = torch.compile(with_main_grad, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"which torch[.]compile cannot trace"):
        compiled(x)

    torch.compile(with_main_grad, backend="aot_eager")(x).sum().backward()  # beside the graph
    assert weight.main_grad.any()

    def of_wrong_shape(x):
        return adapter.dense_sigmoid(x, x)

    with pytest.raises(RuntimeError, match="w has shape"):
        torch.compile(of_wrong_shape, fullgraph=True, backend="aot_eager")(x)


def test_export():
    layer = adapter.SigmoidLinear(3, 2, save_logits=True)
    x = torch.randn(4, 3)
    batch = torch.export.Dim("batch", min=2, max=100)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch},))
    for rows in (x, torch.randn(9, 3)):
        torch.testing.assert_close(program.module()(rows), layer(rows))


@pytest.mark.parametrize("logits", [False, True])
def test_what_onnx_is_made_from_is_pytorchs(through_operators, monkeypatch, logits):
    """By the older exporter, which traces; the newer takes what torch.export gives."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    layer, x = adapter.SigmoidLinear(3, 2, save_logits=logits), torch.randn(4, 3)
    w = torch.randn(3, 2)
    for function in (layer, lambda x: adapter.dense_sigmoid(x, w, save_logits=logits)):
        graph = str(torch.jit.trace(function, x).inlined_graph)
        assert "aten::sigmoid" in graph
        assert "gpugrad::" not in graph


def test_make_fx(through_operators):
    make_fx = import_module("torch.fx.experimental.proxy_tensor").make_fx
    tensors = tensors_of(Layer((2, 2), 3, 2))
    arguments = [tensors[one] for one in ("dy", "y", "x", "w")]
    for mode in ("fake", "symbolic"):
        traced = make_fx(lambda *one: adapter.dense_sigmoid_backward(*one), tracing_mode=mode)(
            *arguments
        )
        assert "torch.ops.gpugrad.dense_sigmoid_backward" in traced.code
        expected = adapter.dense_sigmoid_backward(*arguments)
        assert all(map(torch.equal, traced(*arguments), expected))


# ---- PyTorch's other transformations: test_torch_transformations.py has those of layers


def test_transforms_of_every_operator(through_operators):
    """Forward mode and batches beside the gradients, which are checked elsewhere."""
    for names, function in DIFFERENTIABLE.values():
        tensors = tensors_of(Layer((2, 2), 3, 2))
        inputs = tuple(tensors[one] for one in names)
        tangents = tuple(one.cos() for one in inputs)

        def outputs(*inputs, function=function):
            return given(function(*inputs))

        results, moved = torch.func.jvp(outputs, inputs, tangents)
        _, pull = torch.func.vjp(outputs, *inputs)
        cotangents = tuple(one.sin() for one in results)
        forward = sum((one * other).sum() for one, other in zip(cotangents, moved, strict=True))
        pulled = zip(tangents, pull(cotangents), strict=True)
        reverse = sum((one * other).sum() for one, other in pulled)
        torch.testing.assert_close(forward, reverse, rtol=1e-12, atol=1e-12)
        for in_dims in itertools.product((0, None), repeat=len(inputs)):
            if not any(dim == 0 for dim in in_dims):
                continue
            batched = tuple(
                one if dim is None else torch.stack([one, -one, one / 2])
                for one, dim in zip(inputs, in_dims, strict=True)
            )
            ours = torch.func.vmap(outputs, in_dims)(*batched)
            for i, expected in enumerate(zip(*ours, strict=True)):
                chosen = (
                    one if dim is None else one[i]
                    for one, dim in zip(batched, in_dims, strict=True)
                )
                torch.testing.assert_close(expected, outputs(*chosen), rtol=1e-12, atol=1e-12)


def test_a_batch_of_rows_is_one_call(through_operators, monkeypatch):
    operators = import_module("gpugrad.torch.operators")
    calls, compute = [], operators.call

    def spy(function, *tensors, **options):
        calls.append(function.__name__)
        return compute(function, *tensors, **options)

    monkeypatch.setattr(operators, "call", spy)
    layer, x = adapter.SigmoidLinear(3, 2), torch.randn(6, 4, 3)
    torch.func.vmap(layer)(x).sum().backward()
    assert calls == ["dense_sigmoid", "dense_sigmoid_backward"]


def test_main_grad_has_no_forward_mode():
    x = torch.randn(4, 3)
    with pytest.raises(RuntimeError, match=r"functorch transforms|forward mode"):
        torch.func.jvp(adapter.SigmoidLinear(3, 2, main_grad=True), (x,), (x,))


@pytest.mark.parametrize("logits", [False, True])
def test_traced_by_jit(way, logits):
    layer, x = adapter.SigmoidLinear(3, 2, save_logits=logits), torch.randn(4, 3)
    traced = torch.jit.trace(layer, x)
    other = torch.randn(7, 3)
    assert torch.equal(traced(other), layer(other))
