"""The same work done by others, on sets of operands that are rotated over.

cuBLAS through CuPy, and PyTorch in several ways: gpugrad/benchmark/peers/ has what they compute.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from bench.workload import Set
from gpugrad.benchmark.peers import cupy_cublas, pytorch
from gpugrad.gpu.availability import installed

Calls = list[Callable[[], Any]]


def cupy_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Return a call for each set of operands; float32 products are IEEE unless CUPY_TF32 is set."""
    return [cupy_cublas.call(op, one) for one in sets]


# ---- PyTorch


@functools.cache
def no_pytorch() -> str | None:
    """Return why PyTorch cannot take part, or None if it can."""
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
    return [pytorch.tensors(one) for one in sets]


def set_float32_products(precision: str) -> None:
    """Choose how PyTorch multiplies float32 matrices: "highest" is IEEE, "high" is TF32."""
    import torch

    torch.set_float32_matmul_precision(precision)


def eager_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Compose the operation of PyTorch's, each run as it is called."""
    composition = pytorch.composed(op)
    return _bound(composition, sets, pytorch.parameters(composition))


def compiled_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Compile the composition with torch.compile for these shapes."""
    import torch

    torch.compiler.reset()  # its cache is bounded for each function
    composition = pytorch.composed(op)
    compiled: Any = torch.compile(composition, dynamic=False, fullgraph=True)
    return _bound(compiled, sets, pytorch.parameters(composition))


def autograd_calls(op: str, sets: Sequence[Set]) -> Calls:
    """Return calls of autograd through a forward pass that is made once for each set."""
    return [pytorch.backward(op, one) for one in sets]


def _bound(function: Any, sets: Sequence[Set], names: Sequence[str]) -> Calls:
    return [functools.partial(function, *(one[name] for name in names)) for one in sets]
