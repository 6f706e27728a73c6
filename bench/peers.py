"""The same work done by others: cuBLAS through CuPy, and PyTorch in several ways."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from bench.workload import Set
from gpugrad import _kinds
from gpugrad.gpu.availability import installed

Calls = list[Callable[[], Any]]


# ---- CuPy: one kernel for what is element-wise, cuBLAS for products, its sum for columns


def cupy_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Give a call for each set of operands; float32 products are IEEE unless CUPY_TF32 is set."""
    compose = _CUPY[op]
    names = compose.__code__.co_varnames[: compose.__code__.co_argcount]
    return [functools.partial(compose, **{name: one.get(name) for name in names}) for one in sets]


def _kernel(dtype: Any, inputs: str, output: str, expression: str) -> Any:
    return _compiled(inputs, output, expression, "double" if dtype.itemsize == 8 else "float")


@functools.cache
def _compiled(inputs: str, output: str, expression: str, wide: str) -> Any:
    """Make an element-wise kernel that computes in `wide`, whatever is stored."""
    import cupy

    names = inputs.split()
    copies = " ".join(f"const {wide} {name}_ = {name};" for name in names)
    return cupy.ElementwiseKernel(
        ", ".join(f"T {name}" for name in names),
        f"T {output}",
        f"{copies} {output} = T({expression});",
        f"composed_{output}_{wide}",
    )


def _dz(dy: Any, y: Any) -> Any:
    return _kernel(dy.dtype, "dy y", "dz", "dy_ * y_ * (1 - y_)")(dy, y)


def _sigma(z: Any) -> Any:
    return _kernel(z.dtype, "z", "y", "1 / (1 + exp(-z_))")(z)


def _sigma_of_sum(z: Any, b: Any) -> Any:
    return _kernel(z.dtype, "z b", "y", "1 / (1 + exp(-(z_ + b_)))")(z, b)


def _cupy_matmul_backward(dy: Any, x: Any, w: Any) -> Any:
    return dy @ w.T, x.T @ dy


def _cupy_bias_backward(dy: Any) -> Any:
    return dy.sum(axis=0)


def _cupy_sigmoid_bias_backward(dy: Any, y: Any) -> Any:
    dz = _dz(dy, y)
    return dz, dz.sum(axis=0)


def _cupy_dense_sigmoid_backward(dy: Any, y: Any, x: Any, w: Any) -> Any:
    dz = _dz(dy, y)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def _cupy_dense_sigmoid(x: Any, w: Any, b: Any) -> Any:
    return _sigma_of_sum(x @ w, b)


_CUPY: dict[str, Any] = {
    "matmul_backward": _cupy_matmul_backward,
    "bias_backward": _cupy_bias_backward,
    "sigmoid_backward": _dz,
    "sigmoid_bias_backward": _cupy_sigmoid_bias_backward,
    "dense_sigmoid_backward": _cupy_dense_sigmoid_backward,
    "sigmoid": _sigma,
    "dense_sigmoid": _cupy_dense_sigmoid,
}


# ---- PyTorch


@functools.cache
def no_pytorch() -> str | None:
    """Say why PyTorch cannot take part, or None if it can."""
    if not installed("torch"):
        return "PyTorch is not installed"
    try:
        import torch

        if not torch.cuda.is_available():
            return "PyTorch finds no GPU"
        if torch.cuda.current_stream().cuda_stream != 0:
            return "PyTorch does not work on the default stream"  # which the events are on
    except Exception as error:  # whatever a broken installation raises
        return f"PyTorch cannot be used: {type(error).__name__}: {error}"[:300]
    return None


def tensors(sets: Sequence[Set]) -> list[Set]:
    """View sets of CuPy arrays as tensors, without copies."""
    import torch  # noqa: F401  (for `wrap`)

    return [{name: _kinds.wrap(array, "PyTorch") for name, array in one.items()} for one in sets]


def set_float32_products(precision: str) -> None:
    """Choose how PyTorch multiplies float32 matrices: "highest" is IEEE, "high" is TF32."""
    import torch

    torch.set_float32_matmul_precision(precision)


def eager_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Compose the operation of PyTorch's, each run as it is called."""
    return _bound(_composed(op), sets)


def compiled_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Compile the composition with torch.compile for these shapes."""
    import torch

    torch.compiler.reset()  # its cache is bounded for each function
    compiled: Any = torch.compile(_composed(op), dynamic=False, fullgraph=True)
    return _bound(compiled, sets, names=_operands(_composed(op)))


def autograd_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Let autograd go backwards through the layer's own forward pass, made once for each set."""
    import torch

    calls: Calls = []
    for one in sets:
        result, leaves = _forward(op, one)
        backward = functools.partial(
            torch.autograd.grad, result, leaves, one["dy"], retain_graph=True
        )
        calls.append(backward)
    return calls


def _forward(op: str, one: Set) -> tuple[Any, list[Any]]:
    """Compute what `op` differentiates; its result and the leaves that gradients are asked of."""
    import torch

    def leaf(tensor: Any) -> Any:
        return tensor.detach().requires_grad_()

    if op == "bias_backward":
        b = leaf(torch.zeros_like(one["dy"][0]))
        return one["dy"] + b, [b]
    if op == "sigmoid_backward":
        z = leaf(one["z"])
        return torch.sigmoid(z), [z]
    if op == "sigmoid_bias_backward":
        z, b = leaf(one["z"]), leaf(torch.zeros_like(one["z"][0]))
        return torch.sigmoid(z + b), [z, b]
    x, w = leaf(one["x"]), leaf(one["w"])
    if op == "matmul_backward":
        return x @ w, [x, w]
    if op == "dense_sigmoid_backward":
        b = leaf(torch.zeros_like(one["dy"][0]))
        return torch.sigmoid(torch.addmm(b, x, w)), [x, w, b]
    raise ValueError(f"{op} is no backward pass")


def _bound(function: Any, sets: Sequence[Set], names: Sequence[str] = ()) -> Calls:
    names = names or _operands(function)
    return [functools.partial(function, *(one[name] for name in names)) for one in sets]


def _operands(function: Any) -> tuple[str, ...]:
    code = function.__code__
    return tuple(code.co_varnames[: code.co_argcount])


def _composed(op: str) -> Any:
    """Give the operation as PyTorch's users write it, with its fused sigmoid gradient."""
    import torch

    gradient = torch.ops.aten.sigmoid_backward

    def matmul_backward(dy: Any, x: Any, w: Any) -> Any:
        return dy @ w.t(), x.t() @ dy

    def bias_backward(dy: Any) -> Any:
        return dy.sum(0)

    def sigmoid_backward(dy: Any, y: Any) -> Any:
        return gradient(dy, y)

    def sigmoid_bias_backward(dy: Any, y: Any) -> Any:
        dz = gradient(dy, y)
        return dz, dz.sum(0)

    def dense_sigmoid_backward(dy: Any, y: Any, x: Any, w: Any) -> Any:
        dz = gradient(dy, y)
        return dz @ w.t(), x.t() @ dz, dz.sum(0)

    def sigmoid(z: Any) -> Any:
        return torch.sigmoid(z)

    def dense_sigmoid(x: Any, w: Any, b: Any) -> Any:
        return torch.sigmoid(torch.addmm(b, x, w))

    functions: list[Any] = [
        *(matmul_backward, bias_backward, sigmoid_backward, sigmoid_bias_backward),
        *(dense_sigmoid_backward, sigmoid, dense_sigmoid),
    ]
    return next(one for one in functions if one.__name__ == op)
