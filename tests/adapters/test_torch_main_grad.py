"""Gradients of 16-bit layers that are added to float32 buffers."""

import threading

import numpy as np
import pytest

from gpugrad.errors import ArgumentError, DTypeError, ShapeError
from gpugrad.testing import reference
from tests.adapters.test_frameworks import array_of
from tests.support.torch_functions import DEVICES, adapter, in_threads, needs_cuda, torch

SigmoidLinear = adapter.SigmoidLinear
pytestmark = pytest.mark.usefixtures("same_tensors")

HALVES = [torch.float16, torch.bfloat16]


def with_main_grad(dtype, device="cpu", *, k=7, m=5, **options):
    return SigmoidLinear(k, m, dtype=dtype, device=device, main_grad=True, **options)


def step(layer, x, dy):
    layer(x).backward(dy)


def expected_sums(layer, batches):
    """Σ xᵀ dz and Σ dz over all batches, and a bound on the distance of sums in float32."""
    sums = {}
    with torch.no_grad():
        for x, dy in batches:
            weight, bias = layer.weight.detach(), layer.bias
            y = adapter.sigmoid_linear(x, weight, bias, save_logits=layer.save_logits)
            z = torch.nn.functional.linear(x, weight, bias) if layer.save_logits else None
            arrays = {
                name: array_of(torch, one.contiguous())
                for name, one in (("dy", dy), ("x", x), ("w", weight.t()))
            }
            read = {"z": array_of(torch, z)} if layer.save_logits else {"y": array_of(torch, y)}
            wide = "float64" if x.dtype == torch.float64 else "float32"
            dtypes = {"dw": wide, "db": wide}
            answers = reference("dense_sigmoid_backward", **arrays, **read, dtypes=dtypes)
            for name in ("dw", "db"):
                total, bound = sums.get(name, (0, 0))
                exact = total + answers[name].exact
                sums[name] = exact, bound + answers[name].bound + np.finfo(wide).eps * np.abs(exact)
    return sums


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_sums_of_many_steps(dtype, logits):
    """As accurate as float32, with no grad beside them."""
    layer = with_main_grad(dtype, save_logits=logits)
    batches = [(torch.randn(2, 4, 7).to(dtype), torch.randn(2, 4, 5).to(dtype)) for _ in range(20)]
    for x, dy in batches:
        step(layer, x, dy)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    sums = expected_sums(layer, batches)
    for parameter, name in ((layer.weight, "dw"), (layer.bias, "db")):
        assert parameter.grad is None
        assert parameter.main_grad.dtype == wide
        assert not parameter.main_grad.requires_grad
        exact, bound = sums[name]
        found = parameter.main_grad.t() if name == "dw" else parameter.main_grad
        assert (np.abs(found.double().numpy() - exact) <= bound).all()


@pytest.mark.parametrize("device", DEVICES)
def test_digits_are_kept_that_16_bits_lose(device):
    """4096 steps of 2⁻¹⁰ on 4: bfloat16 has 4, float32 8."""
    layer = SigmoidLinear(1, 1, bias=False, dtype=torch.bfloat16, device=device, main_grad=True)
    plain = SigmoidLinear(1, 1, bias=False, dtype=torch.bfloat16, device=device)
    with torch.no_grad():
        layer.weight.zero_()
        plain.weight.zero_()
    layer.weight.main_grad = torch.full((1, 1), 4.0, device=device)
    plain.weight.grad = torch.full((1, 1), 4.0, dtype=torch.bfloat16, device=device)
    x = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
    dy = x * 2.0**-8
    for _ in range(4096):
        step(layer, x, dy)
    for _ in range(10):
        step(plain, x, dy)
    assert layer.weight.main_grad.item() == 8
    assert plain.weight.grad.item() == 4


def test_main_grad_is_made_once_and_added_to():
    layer = with_main_grad(torch.bfloat16)
    x, dy = torch.randn(4, 7).bfloat16(), torch.randn(4, 5).bfloat16()
    assert not hasattr(layer.weight, "main_grad")
    y = layer(x)
    assert not hasattr(layer.weight, "main_grad")
    y.backward(dy, retain_graph=True)
    made, first = layer.weight.main_grad, layer.weight.main_grad.clone()
    y.backward(dy)
    assert layer.weight.main_grad is made
    torch.testing.assert_close(made, 2 * first, rtol=1e-6, atol=0)
    own = layer.weight.main_grad = torch.full((5, 7), 100.0)
    step(layer, x, dy)
    assert layer.weight.main_grad is own
    torch.testing.assert_close(own, 100 + first)
    layer.weight.main_grad = None
    step(layer, x, dy)
    torch.testing.assert_close(layer.weight.main_grad, first)
    kept = layer.weight.main_grad = torch.zeros(7, 5).t()  # of any strides
    step(layer, x, dy)
    assert layer.weight.main_grad is kept
    torch.testing.assert_close(kept, first)


def test_gradients_beside_main_grad():
    """That of x comes back, and is what it is for a layer without."""
    layer = with_main_grad(torch.float32)
    plain = SigmoidLinear(7, 5)
    plain.load_state_dict(layer.state_dict())
    x, dy = torch.randn(2, 4, 7, requires_grad=True), torch.randn(2, 4, 5)
    (dx,) = torch.autograd.grad(layer(x), x, dy)
    results = torch.autograd.grad(plain(x), (x, plain.weight, plain.bias), dy)
    ours = (dx, layer.weight.main_grad, layer.bias.main_grad)
    torch.testing.assert_close(ours, results)


def test_frozen_parameters_have_no_main_grad():
    x, dy = torch.randn(4, 7), torch.randn(4, 5)
    for frozen, other in (("weight", "bias"), ("bias", "weight")):
        layer = with_main_grad(torch.float32)
        getattr(layer, frozen).requires_grad_(False)
        step(layer, x, dy)
        assert not hasattr(getattr(layer, frozen), "main_grad")
        assert getattr(layer, other).main_grad.any()
    without = SigmoidLinear(7, 5, bias=False, main_grad=True)
    step(without, x, dy)
    assert without.weight.main_grad.any()
    both = with_main_grad(torch.float32).requires_grad_(False)
    leaf = x.requires_grad_()
    step(both, leaf, dy)
    assert leaf.grad.any()
    assert not hasattr(both.weight, "main_grad")


def test_a_main_grad_that_does_not_fit():
    layer = with_main_grad(torch.bfloat16)
    x, dy = torch.randn(4, 7).bfloat16(), torch.randn(4, 5).bfloat16()
    for name, bad, says in [
        ("weight", torch.zeros(7, 5), r"weight.main_grad has shape \(7, 5\), expected \(5, 7\)"),
        ("bias", torch.zeros(1), r"bias.main_grad has shape \(1,\), expected \(5,\)"),
        ("weight", torch.zeros(5, 7).bfloat16(), "weight.main_grad has dtype torch.bfloat16, exp"),
        ("bias", torch.zeros(5).double(), "bias.main_grad has dtype torch.float64, expected"),
        ("bias", torch.zeros(5, device="meta"), "bias.main_grad has device meta, expected cpu"),
        ("weight", torch.zeros(1, 1).expand(5, 7), "elements that share memory"),
        ("bias", torch.zeros(5, requires_grad=True), "requires grad"),
    ]:
        layer.weight.main_grad = layer.bias.main_grad = None
        getattr(layer, name).main_grad = bad
        with pytest.raises(ArgumentError, match=says) as raised:
            step(layer, x, dy)
        assert isinstance(raised.value, RuntimeError)  # and nothing has been written:
        for one in (layer.weight.main_grad, layer.bias.main_grad):
            assert one is None or one.is_meta or not one.any()


def test_second_derivatives_of_main_grad_are_refused():
    """Rather than left out of a sum."""
    layer = with_main_grad(torch.float32)
    x = torch.randn(4, 7, requires_grad=True)
    with pytest.raises(RuntimeError, match="main_grad=True has no second derivatives"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    assert not hasattr(layer.weight, "main_grad")


def test_main_grad_of_what_is_no_leaf_is_refused():
    layer = with_main_grad(torch.float32)
    with pytest.raises(RuntimeError, match="weight is no leaf"):
        adapter.sigmoid_linear(torch.randn(4, 7), 2 * layer.weight, main_grad=True)


def test_main_grad_converts_nothing():
    """As little as any layer does; only autocast does."""
    layer = with_main_grad(torch.float32)
    x = torch.randn(4, 7)
    for bad in (x.double(), x.half()):
        with pytest.raises(DTypeError, match="w has dtype float32, expected float"):
            layer(bad)
    with pytest.raises(ShapeError, match="has shape"):
        layer(x[:, :3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight.main_grad.dtype == torch.float32
    expected = torch.autograd.grad(replaced_by(layer)(x).sum(), layer.weight)[0]
    within = 16 * torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(layer.weight.main_grad, expected, rtol=within, atol=within)


def replaced_by(layer):
    return lambda x: torch.sigmoid(torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_main_grad_with_checkpoints():
    layer, x = with_main_grad(torch.float32), torch.randn(4, 7, requires_grad=True)
    step(layer, x, torch.ones(4, 5))
    once = layer.weight.main_grad.clone()
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    y.sum().backward()
    torch.testing.assert_close(layer.weight.main_grad, 2 * once)


def test_main_grad_of_backward_passes_in_threads(monkeypatch):
    """One buffer for all, and no sum lost, even where making it takes time."""
    layer = with_main_grad(torch.float64, k=64, m=64)
    x, dy = torch.randn(50, 64, dtype=torch.float64), torch.randn(50, 64, dtype=torch.float64)
    results = [layer(x) for _ in range(4)]
    barrier, make = threading.Barrier(4), torch.zeros_like
    pause = threading.Event()

    def slow(*arguments, **options):
        pause.wait(0.05)
        return make(*arguments, **options)

    monkeypatch.setattr(torch, "zeros_like", slow)

    def work(index):
        barrier.wait()
        results[index].backward(dy, retain_graph=True)
        for _ in range(10):
            results[index].backward(dy, retain_graph=True)

    in_threads(work)
    monkeypatch.undo()
    sums = layer.weight.main_grad
    layer.weight.main_grad = None
    step(layer, x, dy)
    torch.testing.assert_close(sums, 44 * layer.weight.main_grad, rtol=1e-12, atol=1e-12)


@needs_cuda
def test_a_graph_does_not_make_main_grad():
    layer = with_main_grad(torch.bfloat16, "cuda")
    x = torch.randn(4, 7, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(layer, x, torch.ones(4, 5, device="cuda", dtype=torch.bfloat16))
    torch.cuda.current_stream().wait_stream(side)
    layer.weight.main_grad = None
    with pytest.raises(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        step(layer, x, torch.ones(4, 5, device="cuda", dtype=torch.bfloat16))
