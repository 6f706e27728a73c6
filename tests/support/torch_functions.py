"""The functions of gpugrad.torch as a table, tensors for them, and calls of their operators."""

import itertools
import threading
from importlib import import_module

import pytest

from tests.adapters.test_frameworks import devices, tensor_of
from tests.support.cases import layer_arrays

torch = pytest.importorskip("torch", reason="needs PyTorch")
adapter = import_module("gpugrad.torch")

DEVICES = devices(torch)
WARNINGS = [  # PyTorch's own, of what it is made of, and of kinds of tensors that it works on
    pytest.mark.filterwarnings(f"ignore:{begins}")
    for begins in (
        "`torch.jit",
        "Sparse CSR tensor support",
        "torch.quantize_per_tensor",
        "The PyTorch API of nested tensors",
        "There is a performance drop",
        "Converting a tensor to a Python boolean",
    )
]


def needs_cuda(test):
    """Mark a test that runs on PyTorch's CUDA devices and nowhere else."""
    return pytest.mark.gpu(pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")(test))


def tensors_of(layer, dtype="float64", device="cpu", seed=0):
    arrays = layer_arrays(layer, dtype, seed)
    tensors = {
        name: tensor_of(torch, one, device).clone(memory_format=torch.contiguous_format)
        for name, one in arrays.items()
    }
    return tensors | {"weight": tensors["w"].t().contiguous(), "bias": tensors["b"]}


def subsets(names):
    return [
        chosen
        for size in range(1, len(names) + 1)
        for chosen in itertools.combinations(names, size)
    ]


def given(results):
    """The results that were wanted, as a tuple."""
    results = results if isinstance(results, tuple) else (results,)
    return tuple(one for one in results if one is not None)


def differentiable():
    """By name: the operands of a function, and the function."""
    yield "sigmoid", "z", adapter.sigmoid
    yield "sigmoid, logits", "z", lambda z: adapter.sigmoid(z, save_logits=True)
    for logits in (False, True):
        options = {"save_logits": logits}
        said = ", logits" * logits

        def dense(x, w, b=None, options=options):
            return adapter.dense_sigmoid(x, w, b, **options)

        def linear(x, weight, bias=None, options=options):
            return adapter.sigmoid_linear(x, weight, bias, **options)

        yield f"dense_sigmoid{said}", "x w b", dense
        yield f"dense_sigmoid without b{said}", "x w", dense
        yield f"sigmoid_linear{said}", "x weight bias", linear
        yield f"sigmoid_linear without bias{said}", "x weight", linear
    yield "bias_backward", "dy", adapter.bias_backward
    for wrt in subsets(("x", "w")):
        yield (
            f"matmul_backward {''.join(wrt)}",
            "dy x w",
            lambda dy, x, w, wrt=wrt: adapter.matmul_backward(dy, x, w, wrt=wrt),
        )
    for read in ("y", "z"):

        def y_or_z(one, read=read):
            return {"y": one if read == "y" else None, "z": one if read == "z" else None}

        yield (
            f"sigmoid_backward from {read}",
            f"dy {read}",
            lambda dy, one, y_or_z=y_or_z: adapter.sigmoid_backward(dy, **y_or_z(one)),
        )
        yield (
            f"sigmoid_bias_backward from {read}",
            f"dy {read}",
            lambda dy, one, y_or_z=y_or_z: adapter.sigmoid_bias_backward(dy, **y_or_z(one)),
        )
        for wrt in subsets(("x", "w", "b")):
            yield (
                f"dense_sigmoid_backward {''.join(wrt)} from {read}",
                f"dy {read} x w",
                lambda dy, one, x, w, wrt=wrt, y_or_z=y_or_z: adapter.dense_sigmoid_backward(
                    dy, x=x, w=w, wrt=wrt, **y_or_z(one)
                ),
            )


DIFFERENTIABLE = {name: (names.split(), function) for name, names, function in differentiable()}
LAYER_FUNCTIONS = [one for one in DIFFERENTIABLE if one.startswith(("dense_sigmoid", "sigmoid_l"))]
FORWARD = [one for one in LAYER_FUNCTIONS if "backward" not in one]


def ordered(tensor, order):
    """The same values in C's order, in Fortran's, or as every second element of a larger one."""
    if order == "F" and tensor.dim() > 1:
        axes = tuple(reversed(range(tensor.dim())))
        return tensor.permute(axes).contiguous().permute(axes)
    if order == "sliced":
        larger = tensor.new_full([2 * extent + 1 for extent in tensor.shape], 7)
        view = larger[(slice(1, None, 2),) * tensor.dim()]
        return view.copy_(tensor)
    return tensor.contiguous()


def operator_calls(layer, dtype="float64", order="C", device="cpu"):
    """Operators and their arguments, with y, z or b given or not, and results wanted or not."""
    tensors = tensors_of(layer, dtype, device)
    dy, y, z, x, w, b = (ordered(tensors[one], order) for one in ("dy", "y", "z", "x", "w", "b"))
    precision = "highest"
    yield "sigmoid", (z, False)
    yield "sigmoid", (z, True)
    yield "bias_backward", (dy,)
    for y_and_z in ((y, None), (None, z), (y, z)):
        yield "sigmoid_backward", (dy, *y_and_z)
        yield "sigmoid_bias_backward", (dy, *y_and_z)
    for name in ("dense_sigmoid", "dense_sigmoid_and_logits"):
        yield name, (x, w, b, precision)
        yield name, (x, w, None, precision)
    for need in itertools.product((True, False), repeat=2):
        yield "matmul_backward", (dy, x, w, *need, precision)
    for need in itertools.product((True, False), repeat=3):
        yield "dense_sigmoid_backward", (dy, y, x, w, None, *need, precision)
    yield "dense_sigmoid_backward", (dy, None, x, w, z, True, True, True, precision)


def described(results):
    return [(one.shape, one.stride(), one.dtype, one.device) for one in given(results)]


def in_threads(work, number=4):
    errors = []

    def run(index):
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
