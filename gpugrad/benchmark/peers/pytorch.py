"""PyTorch: backwards by autograd, and the same composed of its functions, on CPU and GPU alike."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from gpugrad.arrays import kinds
from gpugrad.benchmark.peers import Implementation
from gpugrad.benchmark.peers.composition import Calls, bound, composed
from gpugrad.gpu.availability import installed

FORWARD = ("sigmoid", "dense_sigmoid")  # nothing to go backwards through

Set = Mapping[str, Any]  # operands by name


def facts() -> dict[str, Any]:
    """Return the version and the threads."""
    import torch

    return {"version": torch.__version__, "threads": torch.get_num_threads()}


def implementations(op: str, operands: Set, device: str) -> list[Implementation]:
    """Return autograd, whose forward pass is made here, and the composition run as it is called."""
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        return []
    given = [tensors(operands)]
    where = " GPU" if device == "gpu" else ""
    found = [Implementation(f"torch eager{where}", eager(op, given)[0], _to_host, device)]
    if op not in FORWARD:
        call = backward(op, given)[0]
        found.insert(0, Implementation(f"PyTorch{where}", call, _to_host, device))
    return found


@functools.cache
def no_gpu() -> str | None:
    """Return why PyTorch cannot take part on a GPU, or None if it can."""
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


def tensors(operands: Set) -> dict[str, Any]:
    """View arrays of NumPy or CuPy as tensors, without copies."""
    import torch  # noqa: F401  (for `wrap`)

    return {name: kinds.wrap(array, "PyTorch") for name, array in operands.items()}


def set_float32_products(precision: str) -> None:
    """Choose how PyTorch multiplies float32 matrices: "highest" is IEEE, "high" is TF32."""
    import torch

    torch.set_float32_matmul_precision(precision)


def eager(op: str, sets: Sequence[Set]) -> Calls:
    """Return calls of the composition, for each set of tensors, run as they are called."""
    return bound(_composed(op), op, sets)


def compiled(op: str, sets: Sequence[Set]) -> Calls:
    """Compile the composition with torch.compile for these shapes."""
    import torch

    torch.compiler.reset()  # its cache is bounded for each function
    return bound(torch.compile(_composed(op), dynamic=False, fullgraph=True), op, sets)


def backward(op: str, sets: Sequence[Set]) -> Calls:
    """Make the layer's own forward pass of each set, and return calls of autograd through it."""
    import torch

    calls: Calls = []
    for one in sets:
        result, leaves = _forward(op, one)
        grad = functools.partial(torch.autograd.grad, result, leaves, one["dy"], retain_graph=True)
        calls.append(grad)
    return calls


def _composed(op: str) -> Any:
    """Return the operation as PyTorch's users write it, with its fused sigmoid gradient."""
    import torch

    def dense_sigmoid(x: Any, w: Any, b: Any) -> Any:
        return torch.sigmoid(torch.addmm(b, x, w))

    return composed(torch.sigmoid, dense_sigmoid, torch.ops.aten.sigmoid_backward)[op]


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
