"""SigmoidLinear: in the place of Linear and Sigmoid, with autocast, with saved logits."""

import copy
import io
import pickle
import subprocess
import sys
import tracemalloc
from importlib import import_module

import numpy as np
import pytest

from gpugrad.testing import reference
from tests.adapters.test_frameworks import array_of
from tests.support.torch_functions import DEVICES, WARNINGS, adapter, in_threads, needs_cuda, torch

small_layers = import_module("gpugrad.torch.small_layers")
SigmoidLinear = adapter.SigmoidLinear

pytestmark = [*WARNINGS, pytest.mark.usefixtures("same_tensors")]
HALVES = [torch.float16, torch.bfloat16]


def replaced(*sizes, **options):
    """What SigmoidLinear stands for."""
    return torch.nn.Sequential(torch.nn.Linear(*sizes, **options), torch.nn.Sigmoid())


def pair(*sizes, **options):
    """Both modules, from the same random numbers."""
    torch.manual_seed(5)
    theirs = replaced(*sizes)
    torch.manual_seed(5)
    return SigmoidLinear(*sizes, **options), theirs


# ---- in the place of Linear and Sigmoid


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"dtype": torch.float64}, {"dtype": torch.bfloat16}],
    ids=["plain", "no bias", "float64", "bfloat16"],
)
def test_parameters_are_those_of_linear(options):
    torch.manual_seed(3)
    ours = SigmoidLinear(7, 5, **options)
    next_of_ours = torch.rand(3)
    torch.manual_seed(3)
    linear = torch.nn.Linear(7, 5, **options)
    assert torch.equal(next_of_ours, torch.rand(3))
    assert list(ours.state_dict()) == list(linear.state_dict())
    assert [name for name, _ in ours.named_parameters()] == list(ours.state_dict())
    for name, one in linear.state_dict().items():
        assert torch.equal(ours.state_dict()[name], one)
        assert ours.state_dict()[name].dtype == one.dtype
        assert ours.state_dict()[name].stride() == one.stride()
    torch.manual_seed(3)
    ours.reset_parameters()
    assert torch.equal(ours.weight, linear.weight)


def test_arguments_are_those_of_linear():
    """In the same order; the others by name alone."""
    assert SigmoidLinear(3, 2, False, "meta", torch.float64).weight.dtype == torch.float64
    assert SigmoidLinear(3, 2, False, "meta").bias is None
    with pytest.raises(TypeError, match="positional"):
        SigmoidLinear(3, 2, True, None, None, "ieee")
    made = torch.nn.utils.skip_init(SigmoidLinear, 3, 2)
    assert made.weight.shape == (2, 3)


def test_state_travels_both_ways():
    ours, theirs, others = SigmoidLinear(7, 5), torch.nn.Linear(7, 5), SigmoidLinear(7, 5)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, theirs.weight)
    torch.nn.Linear(7, 5).load_state_dict(others.state_dict())
    file = io.BytesIO()
    torch.save(others.state_dict(), file)
    file.seek(0)
    ours.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(ours.bias, others.bias)


def test_copies():
    layer = SigmoidLinear(7, 5, precision="ieee", save_logits=True)
    x = torch.randn(3, 7)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
        assert other.weight.data_ptr() != layer.weight.data_ptr()
        assert repr(other) == repr(layer)


def test_representation():
    assert repr(SigmoidLinear(7, 5)) == "SigmoidLinear(in_features=7, out_features=5, bias=True)"
    assert repr(SigmoidLinear(7, 5, bias=False, precision="high", main_grad=True)) == (
        "SigmoidLinear(in_features=7, out_features=5, bias=False, precision='high', main_grad=True)"
    )


def expect_close(one, other):
    """Compare results of a few roundings each, and sums of a few terms of the size of 1."""
    eps = torch.finfo(one.dtype).eps
    torch.testing.assert_close(one, other, rtol=4 * eps, atol=16 * eps)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (0, 7), (1, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"save_logits": True}], ids=["y", "logits"])
def test_values_and_gradients_beside_linear_and_sigmoid(way, shape, dtype, device, options):
    ours, theirs = (one.to(device, dtype) for one in pair(7, 5, **options))
    x = torch.randn(shape, dtype=dtype, device=device)
    results = []
    for net in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = net(leaf)
        y.square().sum().backward()
        results.append((y, leaf.grad, *(one.grad for one in net.parameters())))
    for one, other in zip(*results, strict=True):
        assert one.dtype == dtype
        expect_close(one, other)


def test_training_is_the_same(way):
    ours, theirs = pair(7, 5)
    data = torch.randn(10, 20, 7)
    for net in (ours, theirs):
        optimizer = torch.optim.Adam(net.parameters())
        for x in data:
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs[0].weight)
    torch.testing.assert_close(ours.bias, theirs[0].bias)


def test_moved_to_another_dtype_or_a_device_without_support(way):
    layer = SigmoidLinear(7, 5)
    x = torch.randn(3, 7)
    assert layer.to(torch.float64)(x.double()).dtype == torch.float64
    with pytest.raises(RuntimeError, match="expected float32"):
        layer(x)
    with pytest.raises(RuntimeError, match="is on device meta, expected cpu"):
        layer.to("meta")(x.double())
    with pytest.raises(RuntimeError, match="has dtype float8_e4m3fn"):
        SigmoidLinear(7, 5).to(torch.float8_e4m3fn)(x)


def test_a_training_step_makes_no_copies(through_operators):
    """Beyond y, dx, dw and db NumPy allocates no array of the layer's extents."""
    n, k, m = 1 << 16, 32, 32
    layer = SigmoidLinear(k, m)
    x, dy = torch.randn(n, k, requires_grad=True), torch.randn(n, m)
    layer(x).backward(dy)  # scratch memory stays
    x.grad = None
    tracemalloc.start()
    try:
        layer(x).backward(dy)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.25 * 4 * n * (k + m)


# ---- what PyTorch does around a module


def test_checkpoints_and_saved_tensor_hooks(way):
    layer = SigmoidLinear(7, 5)
    x = torch.randn(3, 7, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    for reentrant in (False, True):
        y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
        y.square().sum().backward()
        assert torch.equal(x.grad, expected)
        x.grad = None
    packed = []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    assert packed
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], expected)


def test_what_was_saved_must_not_change(way):
    layer = SigmoidLinear(7, 5)
    for change in (
        lambda x, y: y.mul_(2),
        lambda x, y: x.mul_(2),
        lambda x, y: layer.weight.mul_(2),
        lambda x, y: y[0].zero_(),
    ):
        x = torch.randn(3, 7, requires_grad=True)
        y = layer(x)
        loss = y.sum()
        with torch.no_grad():
            change(x, y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_results_may_be_changed_in_place_where_autograd_knows(through_operators):
    layer = SigmoidLinear(7, 5, save_logits=True)
    x = torch.randn(3, 7, requires_grad=True)
    y = layer(x)
    y.mul_(2).sum().backward()  # y is not what was saved
    torch.testing.assert_close(x.grad, 2 * torch.autograd.grad(layer(x).sum(), x)[0])


@pytest.mark.parametrize("logits", [False, True])
def test_without_gradients(way, logits):
    layer = SigmoidLinear(7, 5, save_logits=logits)
    x = torch.randn(3, 7)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = layer(x)
        assert not y.requires_grad
        assert torch.equal(y, layer(x))
    frozen = SigmoidLinear(7, 5, save_logits=logits).requires_grad_(False)
    assert not frozen(x).requires_grad
    leaf = x.requires_grad_()
    frozen(leaf).sum().backward()
    assert frozen.weight.grad is None
    assert leaf.grad is not None


def test_hooks(way):
    layer = SigmoidLinear(7, 5)
    seen = []
    layer.register_forward_hook(lambda module, inputs, y: seen.append("forward"))
    layer.register_full_backward_hook(lambda module, dx, dy: seen.append("module"))
    layer.weight.register_hook(lambda dw: seen.append("weight") or 2 * dw)
    layer.bias.register_post_accumulate_grad_hook(lambda one: seen.append("accumulated"))
    x = torch.randn(3, 7, requires_grad=True)
    y = layer(x)
    y.register_hook(lambda dy: seen.append("result"))
    y.sum().backward()
    assert sorted(seen) == ["accumulated", "forward", "module", "result", "weight"]
    expected = _weight_gradient(copy.deepcopy(layer), x)  # without the hooks
    torch.testing.assert_close(layer.weight.grad, 2 * expected)


def _weight_gradient(layer, x):
    y = torch.sigmoid(x @ layer.weight.t() + layer.bias)
    return torch.autograd.grad(y.sum(), layer.weight)[0]


def test_backward_passes_in_threads(way):
    layer = SigmoidLinear(64, 32, dtype=torch.float64)
    x = torch.randn(4, 50, 64, dtype=torch.float64)
    expected = [torch.autograd.grad(layer(one).square().sum(), layer.weight)[0] for one in x]

    def work(index):
        for _ in range(20):
            (dw,) = torch.autograd.grad(layer(x[index]).square().sum(), layer.weight)
            torch.testing.assert_close(dw, expected[index], rtol=1e-12, atol=1e-12)

    in_threads(work)


# ---- autocast


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype, device, logits):
    """Results of autocast's dtype, gradients of the parameters'."""
    layer = SigmoidLinear(7, 5, save_logits=logits, device=device)
    x = torch.randn(3, 7, requires_grad=True, device=device)
    with torch.autocast(device, dtype=dtype):
        y = layer(x)
        other = adapter.dense_sigmoid(x, layer.weight.t(), layer.bias, save_logits=logits)
        with torch.autocast(device, enabled=False):
            assert layer(x).dtype == torch.float32
    assert y.dtype == other.dtype == dtype
    assert torch.equal(y, other)
    values = (one.to(dtype) for one in (x, layer.weight, layer.bias))
    assert torch.equal(y, adapter.sigmoid_linear(*values, save_logits=logits))
    y.float().sum().backward()
    for one in (x, layer.weight, layer.bias):
        assert one.grad.dtype == torch.float32
    expected = _weight_gradient(layer, x.detach())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(layer.weight.grad, expected, rtol=4 * eps, atol=16 * eps)


def test_autocast_leaves_float64(way):
    layer, x = SigmoidLinear(7, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x), torch.sigmoid(x @ layer.weight.t() + layer.bias))


def test_autocast_within_compilation():
    torch.compiler.reset()
    layer, x = SigmoidLinear(7, 5), torch.randn(3, 7)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, eager = compiled(x), layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, eager)
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("wrt", [("x",), ("w",), ("x", "w", "b")])
def test_second_derivatives_within_autocast(wrt):
    """Operators' own gradients are of their operands' dtype wherever they are computed."""
    dy, y = torch.randn(4, 2, requires_grad=True), torch.rand(4, 2)
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, 2, requires_grad=True)

    def second():
        grads = adapter.dense_sigmoid_backward(dy, y, x, w, wrt=wrt)
        loss = sum(one.square().sum() for one in grads if one is not None)
        return torch.autograd.grad(loss, (dy, x, w), materialize_grads=True)

    expected = second()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, second(), expected))
        z = torch.ops.gpugrad.dense_sigmoid_and_logits(x, w, None, "highest")[1]
    assert z.dtype == torch.float32


# ---- saved logits


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "logit"), [("float32", 17), ("float16", 9), ("bfloat16", 7)])
def test_gradients_at_saturation(dtype, logit, device):
    """Of the logits, where PyTorch's and those of y are 0: within the derived bound."""
    z = torch.tensor([logit, -logit], dtype=getattr(torch, dtype), device=device)
    arrays = {"z": array_of(torch, z), "dy": np.ones_like(array_of(torch, z))}
    exact, bound, _ = reference("sigmoid_backward", **arrays)["dz"]
    assert (bound < exact / 100).all()
    one, zero = torch.eye(1, dtype=z.dtype, device=device), torch.zeros(1, 1, device=device)
    leaf = z[:, None].clone().requires_grad_()
    for function in (
        lambda z: adapter.sigmoid(z, save_logits=True),
        lambda z: adapter.sigmoid_linear(z, one, save_logits=True),
        lambda z: adapter.dense_sigmoid(z, one, zero[0].to(z.dtype), save_logits=True),
    ):
        (dz,) = torch.autograd.grad(function(leaf).sum(), leaf)
        assert (np.abs(dz[:, 0].double().cpu().numpy() - exact) <= bound).all()
    for saturated in (torch.sigmoid, adapter.sigmoid, replaced(1, 1)[1]):
        (dz,) = torch.autograd.grad(saturated(leaf).sum(), leaf)
        assert dz[0] == 0


def test_second_derivatives_at_saturation(through_operators):
    """σ'' = −σ' tanh(z/2), where it is lost by y."""
    z = torch.tensor([[40.0], [-40.0]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    slope = np.exp(-40.0)
    for function in (
        lambda z: adapter.sigmoid(z, save_logits=True),
        lambda z: adapter.dense_sigmoid(z, one, save_logits=True),
    ):
        (dz,) = torch.autograd.grad(function(z).sum(), z, create_graph=True)
        (ddz,) = torch.autograd.grad(dz.sum(), z)
        np.testing.assert_allclose(ddz[:, 0].numpy(), [-slope, slope], rtol=1e-12)


# ---- on CUDA devices


@needs_cuda
def test_a_graph_replays_forward_and_backward():
    layer = SigmoidLinear(64, 32, device="cuda")
    x = torch.randn(128, 64, device="cuda", requires_grad=True)
    dy = torch.randn(128, 32, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # kernels are compiled, memory is reserved
            layer(x).backward(dy)
    torch.cuda.current_stream().wait_stream(side)
    layer.weight.grad = layer.bias.grad = x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
        y.backward(dy)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    leaf = x.detach().clone().requires_grad_()
    eager = layer(leaf)
    dx, dw, db = torch.autograd.grad(eager, (leaf, layer.weight, layer.bias), dy)
    assert torch.equal(y, eager)
    for one, other in ((x.grad, dx), (layer.weight.grad, dw), (layer.bias.grad, db)):
        assert torch.equal(one, other)


@needs_cuda
def test_results_follow_pytorchs_current_stream():
    """Operands that are late on a side stream, memory that is given back at once."""
    layer = SigmoidLinear(512, 512, device="cuda")
    x = torch.randn(4096, 512, device="cuda")
    dy = torch.randn(4096, 512, device="cuda")
    expected = torch.autograd.grad(layer(2 * x), layer.weight, dy)[0]
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        for _ in range(20):
            torch.cuda._sleep(10_000_000)
            late = 2 * x
            (dw,) = torch.autograd.grad(layer(late), layer.weight, dy)
            del late
            torch.full_like(x, float("nan"))  # takes over freed memory
            side.synchronize()
            assert torch.equal(dw, expected)


@needs_cuda
def test_devices_are_not_mixed(way):
    layer, x = SigmoidLinear(7, 5), torch.randn(3, 7)
    with pytest.raises(RuntimeError, match="is on device"):
        layer(x.cuda())
    with pytest.raises(RuntimeError, match="is on device"):
        layer.cuda()(x)


# ---- import


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_pytorch():
    """The adapter says what is missing; the package does not miss it."""
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Without())
import gpugrad
assert "torch" not in sys.modules
try:
    import gpugrad.torch
except ModuleNotFoundError as error:
    print(error.name, "|", error)
"""
    assert run(code) == "torch | gpugrad.torch needs PyTorch (pip install 'gpugrad[torch]')"


def test_an_error_inside_pytorch_is_not_hidden():
    code = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'sympy'", name="sympy")
sys.meta_path.insert(0, Broken())
try:
    import gpugrad.torch
except ModuleNotFoundError as error:
    print(error.name, "|", error)
"""
    assert run(code) == "sympy | No module named 'sympy'"


def test_the_package_alone_does_not_import_pytorch():
    assert run("import gpugrad, sys; print('torch' in sys.modules)") == "False"


def test_public_names():
    assert adapter.__all__ == sorted(adapter.__all__)
    for name in adapter.__all__:
        documented = getattr(adapter, name).__doc__
        for section in ("Parameters", "Examples"):
            assert f"{section}\n    {'-' * len(section)}" in documented, name
