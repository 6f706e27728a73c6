"""PyTorch tensors and JAX arrays in and out, and gradients beside the frameworks' own."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.errors import ArgumentError, DTypeError
from tests.conftest import ON_A_GPU
from tests.support.cases import DTYPES, Layer, dtype_of, layer_arrays, random_array
from tests.support.operations import OPERATIONS, same_bits

LAYER = Layer((5, 4), 3, 7)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="needs JAX")


def devices(torch):
    return ["cpu", *(["cuda"] if ON_A_GPU and torch.cuda.is_available() else [])]


def tensor_of(torch, array, device="cpu"):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).to(device).view(torch.bfloat16)
    return torch.from_numpy(array).to(device)


def array_of(torch, tensor):
    assert isinstance(tensor, torch.Tensor)
    if tensor.dtype == torch.bfloat16:
        return tensor.cpu().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.cpu().numpy()


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_torch_in_torch_out(torch, name, dtype):
    """The same bits as for NumPy arrays on the CPU, in new tensors and in the caller's."""
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, dtype)
    operands = [arrays[one] for one in operation.operands]
    expected = as_tuple(operation.function(*operands, device="cpu"))
    for device in devices(torch):
        tensors = [tensor_of(torch, one, device) for one in operands]
        results = as_tuple(operation.function(*tensors))
        buffers = [torch.full_like(one, 7) for one in results]
        given = tuple(buffers) if len(buffers) > 1 else buffers[0]
        written = as_tuple(operation.function(*tensors, out=given))
        for result, buffer, same, array in zip(results, buffers, written, expected, strict=True):
            assert same is buffer
            assert result.device.type == buffer.device.type == device
            assert same_bits(array_of(torch, result), array_of(torch, buffer))
            if device == "cpu":
                assert same_bits(array_of(torch, result), array)


@pytest.mark.parametrize("name", OPERATIONS)
def test_torch_views_and_leaves(torch, name):
    """Transposed and gradient-requiring tensors are read where they are."""
    operation = OPERATIONS[name]
    arrays = layer_arrays(Layer((6,), 5, 4), "float32")
    expected = as_tuple(operation.function(*(arrays[one] for one in operation.operands)))
    fortran = (np.asfortranarray(arrays[one]) for one in operation.operands)
    tensors = [tensor_of(torch, one).requires_grad_() for one in fortran]
    results = as_tuple(operation.function(*tensors))
    for result, array in zip(results, expected, strict=True):
        assert not result.requires_grad
        np.testing.assert_allclose(array_of(torch, result), array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_float32_sums(torch, dtype):
    arrays = layer_arrays(LAYER, dtype)
    dy, y, x, w = (tensor_of(torch, arrays[one]) for one in ("dy", "y", "x", "w"))
    dw = torch.zeros(w.shape, dtype=torch.float32)
    result = gpugrad.dense_sigmoid_backward(dy, y, x, w, wrt=("w",), out=(None, dw, None))
    assert result.dw is dw
    for _ in range(2):
        gpugrad.dense_sigmoid_backward(
            dy, y, x, w, wrt=("w",), out=(None, dw, None), accumulate=True
        )
    once = gpugrad.dense_sigmoid_backward(dy, y, x, w, wrt=("w",)).dw
    np.testing.assert_allclose(dw.numpy(), 3 * once.float().numpy(), rtol=2e-2, atol=1e-2)


def test_torch_errors(torch):
    dy = torch.ones(4, 3)
    for bad, error, says in [
        (np.ones((4, 3), np.float32), DTypeError, "y is a NumPy array, expected a PyTorch array"),
        (torch.ones(4, 3, dtype=torch.int32), DTypeError, "y has dtype int32, expected one of"),
        (torch.ones(4, 3, dtype=torch.complex64), DTypeError, "y has dtype complex64"),
        (torch.ones(4, 3, dtype=torch.float64), DTypeError, "y has dtype float64, expected"),
        (torch.ones(4, 3).to_sparse(), DTypeError, "y has layout torch.sparse_coo"),
        (torch.ones(4, 3, device="meta"), DTypeError, "y is on device meta"),
        (torch.ones(4, 3).tolist(), DTypeError, "y is a list"),
    ]:
        with pytest.raises(error, match=f"^sigmoid_backward: {says}"):
            gpugrad.sigmoid_backward(dy, bad)
    expanded = torch.ones(1, 3).expand(4, 3)
    with pytest.raises(ArgumentError, match=r"^sigmoid_backward: out has elements that share"):
        gpugrad.sigmoid_backward(dy, dy, out=expanded)


def digits():
    """Two hundred handwritten digits, 8 × 8 pixels in [0, 1], and their classes one-hot."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.data[:200] / 16, np.eye(10)[data.target[:200]]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_digits_network(torch, dtype, tolerance):
    """64 → 64 → 10 on real digits: every gradient beside PyTorch's autograd."""
    pixels, classes = (one.astype(dtype) for one in digits())
    shapes = {"w1": (64, 64), "b1": (64,), "w2": (64, 10), "b2": (10,)}
    weights = {
        name: 0.1 * random_array(shape, dtype, seed)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    leaves = {name: torch.from_numpy(one).requires_grad_() for name, one in weights.items()}
    x = torch.from_numpy(pixels).requires_grad_()
    hidden = torch.sigmoid(x @ leaves["w1"] + leaves["b1"])
    output = torch.sigmoid(hidden @ leaves["w2"] + leaves["b2"])
    loss = torch.nn.functional.mse_loss(output, torch.from_numpy(classes))
    loss.backward()

    y1 = gpugrad.dense_sigmoid(pixels, weights["w1"], weights["b1"])
    y2 = gpugrad.dense_sigmoid(y1, weights["w2"], weights["b2"])
    dy = (2 * (y2 - classes) / y2.size).astype(dtype)
    second = gpugrad.dense_sigmoid_backward(dy, y2, y1, weights["w2"])
    first = gpugrad.dense_sigmoid_backward(second.dx, y1, pixels, weights["w1"])

    ours = {"w1": first.dw, "b1": first.db, "w2": second.dw, "b2": second.db}
    for name, gradient in ours.items():
        theirs = leaves[name].grad.numpy()
        assert np.abs(gradient - theirs).max() <= tolerance * np.abs(theirs).max()
    assert np.abs(first.dx - x.grad.numpy()).max() <= tolerance * np.abs(first.dx).max()


def test_every_gradient_beside_autograd(torch):
    arrays = layer_arrays(LAYER, "float64")
    dy, z = (torch.from_numpy(arrays[one]) for one in ("dy", "z"))
    x, w, b = (torch.from_numpy(arrays[one]).requires_grad_() for one in ("x", "w", "b"))

    def theirs(output, *inputs):
        return torch.autograd.grad(output, inputs, dy)

    def assert_close(ours, expected):
        for mine, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)

    assert_close(gpugrad.matmul_backward(dy, x, w), theirs(x @ w, x, w))
    assert_close([gpugrad.bias_backward(dy)], theirs(z + b, b))
    z = z.requires_grad_()
    y = torch.sigmoid(z)
    assert_close([gpugrad.sigmoid_backward(dy, y)], theirs(y, z))
    assert_close(
        gpugrad.sigmoid_bias_backward(dy, None, z=z + b), theirs(torch.sigmoid(z + b), z, b)
    )
    y = torch.sigmoid(x @ w + b)
    assert_close([gpugrad.dense_sigmoid(x, w, b)], [y.detach()])
    assert_close(gpugrad.dense_sigmoid_backward(dy, y, x, w), theirs(y, x, w, b))


def test_gradcheck_takes_tensors(torch):
    z = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(4, 3)
    gpugrad.gradcheck(
        gpugrad.sigmoid, lambda u, z: gpugrad.sigmoid_backward(u, gpugrad.sigmoid(z)), [z]
    )


def test_torch_learns_that_a_buffer_was_written(torch):
    """What autograd has saved of it is refused afterwards, as after any in-place operation."""
    a = torch.ones(3, requires_grad=True)
    b = a * 1
    c = b * b
    with torch.no_grad():
        buffer = b.detach()
    gpugrad.sigmoid(torch.zeros(3), out=buffer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        c.sum().backward()


def test_torch_buffers_that_require_grad_are_refused(torch):
    for buffer in (torch.nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True) * 1):
        with pytest.raises(ArgumentError, match=r"^sigmoid: out requires grad, expected"):
            gpugrad.sigmoid(torch.zeros(3), out=buffer)


def test_torch_arrays_of_its_own_are_read_or_refused(torch):
    negated = torch.complex(torch.zeros(3), torch.ones(3)).conj().imag
    assert gpugrad.sigmoid(negated).tolist() == gpugrad.sigmoid(-torch.ones(3)).tolist()
    with pytest.raises(ArgumentError, match=r"^sigmoid: out is a negated view"):
        gpugrad.sigmoid(torch.zeros(3), out=negated)
    with pytest.raises(DTypeError, match=r"^sigmoid: z cannot be viewed as a plain array"):
        torch.func.vmap(gpugrad.sigmoid)(torch.zeros(3, 2))


@pytest.mark.parametrize(("dtype", "logit"), [("float32", 17), ("float16", 9), ("bfloat16", 7)])
def test_torch_loses_the_gradient_that_logits_keep(torch, dtype, logit):
    z = torch.full((3,), logit, dtype=getattr(torch, dtype), requires_grad=True)
    y = torch.sigmoid(z)
    (theirs,) = torch.autograd.grad(y, z, torch.ones_like(z))
    ours = gpugrad.sigmoid_backward(torch.ones_like(z), y, z=z)
    assert (theirs == 0).all()
    true = 1 / (np.exp(logit) + 2 + np.exp(-logit))
    np.testing.assert_allclose(ours.double().numpy(), true, rtol=2**-8)


# ---- JAX


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_jax_in_jax_out(jax, name, dtype):
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, dtype)
    operands = [arrays[one] for one in operation.operands]
    expected = as_tuple(operation.function(*operands, device="cpu"))
    with jax.default_device(jax.devices("cpu")[0]):
        results = as_tuple(operation.function(*map(jax.numpy.asarray, operands)))
    for result, array in zip(results, expected, strict=True):
        assert isinstance(result, jax.Array)
        assert same_bits(np.asarray(result), array)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_jax_takes_over_the_memory_of_results(jax, dtype):
    """Which a copy would take twice of, and half of the time."""
    result = kinds.empty("JAX", "cpu", (33, 7), dtype_of(dtype))[0]
    result[...] = 1
    with jax.default_device(jax.devices("cpu")[0]):
        taken = kinds.wrap(result, "JAX", jax.devices("cpu")[0])
    assert taken.unsafe_buffer_pointer() == result.ctypes.data
    assert taken.shape == (33, 7)
    assert (np.asarray(taken) == 1).all()


def test_jax_arrays_are_never_written(jax):
    dy = jax.numpy.ones((4, 3))
    with pytest.raises(ArgumentError, match=r"^sigmoid_backward: out is read-only"):
        gpugrad.sigmoid_backward(dy, dy, out=dy)


def test_jax_gradients(jax):
    arrays = layer_arrays(LAYER, "float32")
    x, w, b, dy = (jax.numpy.asarray(arrays[one]) for one in ("x", "w", "b", "dy"))

    def layer(x, w, b):
        return jax.nn.sigmoid(x @ w + b)

    y, vjp = jax.vjp(layer, x, w, b)
    ours = gpugrad.dense_sigmoid_backward(dy, y, x, w)
    for mine, other in zip(ours, vjp(dy), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_jax_loses_the_gradient_that_logits_keep(jax):
    z = jax.numpy.float32(17)
    y, vjp = jax.vjp(jax.nn.sigmoid, z)
    assert vjp(jax.numpy.ones_like(y))[0] == 0
    ours = gpugrad.sigmoid_backward(jax.numpy.ones_like(y), y, z=z)
    np.testing.assert_allclose(ours, np.exp(-17.0), rtol=1e-6)


def test_jax_arrays_stay_on_their_device(jax):
    program = """
import jax, gpugrad
first, second = jax.devices()
near, far = jax.device_put(jax.numpy.ones(3), first), jax.device_put(jax.numpy.ones(3), second)
assert gpugrad.sigmoid(far).devices() == {second}
try:
    gpugrad.sigmoid_backward(near, far)
except gpugrad.DeviceError as error:
    print(error)
"""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("sigmoid_backward: y is on device"), done.stderr


def test_jax_float64_is_refused_where_jax_would_halve_it(jax):
    with jax.enable_x64(True):
        z = jax.numpy.zeros(3, "float64")
        assert gpugrad.sigmoid(z).dtype == np.float64
    with pytest.raises(DTypeError, match=r"^sigmoid: z has dtype float64, which JAX does not make"):
        gpugrad.sigmoid(z)


def test_jax_arrays_of_its_own_are_refused(jax):
    deleted = jax.numpy.ones(3)
    deleted.delete()
    for bad in (jax.random.key(0), deleted):
        with pytest.raises(DTypeError, match=r"^sigmoid: z "):
            gpugrad.sigmoid(bad)


def test_jax_tracers_are_refused(jax):
    with pytest.raises(DTypeError, match=r"^sigmoid: z is traced by a JAX transformation"):
        jax.jit(gpugrad.sigmoid)(jax.numpy.ones(3))
