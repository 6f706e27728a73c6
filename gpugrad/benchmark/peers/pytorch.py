"""PyTorch: backwards by autograd, and the same composed of its functions, on CPU and GPU alike."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from gpugrad.arrays import kinds
from gpugrad.benchmark.peers import Way

FORWARD = ("sigmoid", "dense_sigmoid")  # nothing to go backwards through


def facts() -> dict[str, Any]:
    """Return the version and the threads."""
    import torch

    return {"version": torch.__version__, "threads": torch.get_num_threads()}


def ways(op: str, operands: Mapping[str, Any], device: str) -> list[Way]:
    """Return autograd, whose forward pass is made here, and the composition run as it is called."""
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        return []
    given = tensors(operands)
    where = " GPU" if device == "gpu" else ""
    composition = composed(op)
    bound = functools.partial(composition, *(given[name] for name in parameters(composition)))
    found = [Way(f"torch eager{where}", bound, _to_host, device)]
    if op not in FORWARD:
        found.insert(0, Way(f"PyTorch{where}", backward(op, given), _to_host, device))
    return found


def tensors(operands: Mapping[str, Any]) -> dict[str, Any]:
    """View arrays of NumPy or CuPy as tensors, without copies."""
    import torch  # noqa: F401  (for `wrap`)

    return {name: kinds.wrap(array, "PyTorch") for name, array in operands.items()}


def backward(op: str, one: Mapping[str, Any]) -> Callable[[], Any]:
    """Make the layer's own forward pass; what goes backwards through it, again and again."""
    import torch

    result, leaves = _forward(op, one)
    return functools.partial(torch.autograd.grad, result, leaves, one["dy"], retain_graph=True)


def parameters(function: Any) -> tuple[str, ...]:
    """Name the operands that a composition takes."""
    code = function.__code__
    return tuple(code.co_varnames[: code.co_argcount])


def composed(op: str) -> Any:
    """Return the operation as PyTorch's users write it, with its fused sigmoid gradient."""
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


def _forward(op: str, one: Mapping[str, Any]) -> tuple[Any, list[Any]]:
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


def _to_host(tensor: Any) -> Any:
    return kinds.view(tensor.detach().cpu(), "PyTorch").array
