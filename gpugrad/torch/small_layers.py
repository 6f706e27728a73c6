"""Layers on the CPU that PyTorch's own functions compute in less time.

A training step of a layer of 64 × 64 × 64 takes PyTorch 51 µs, of which 20 are autograd's. Through
an operator that is written in Python it takes 153, for Python is entered forward and backward.
PyTorch's products are computed on threads that are awake, those of NumPy at these sizes on one, so
that bits depend on no number of threads. Of twelve shapes with fewer than 2²⁸ multiply-adds, all
were faster in PyTorch, 1.1 to 3 times; larger ones are faster here, or 4 % slower (two cores).
What is below the smallest normal number of float32 is 0 in PyTorch.
"""

import torch
from torch import Tensor
from torch.nn import functional

FEW = 1 << 28  # multiply-adds of a product
STRIDED = torch.strided
DTYPES = (torch.float32, torch.float64)  # 16-bit logits would be rounded before the sigmoid


def are_quicker_in_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Say whether a layer, x (..., k) and weight (m, k), is left to PyTorch.

    What does not fit is not, for the operators have the error messages; nor what is compiled, nor
    what has been allowed to be computed in less than float32.
    """
    if x.is_nested or weight.is_nested:
        return False
    dtype, rows, extents = x.dtype, x.shape, weight.shape
    if (  # in one expression: a loop over the tensors would take as long as all of it
        dtype not in DTYPES
        or weight.dtype is not dtype
        or not (x.is_cpu and weight.is_cpu)
        or x.layout is not STRIDED
        or weight.layout is not STRIDED
        or not rows
        or len(extents) != 2
        or rows[-1] != extents[1]
        or x.numel() * extents[0] >= FEW
        or torch.compiler.is_compiling()
        or not _in_full_float32()
    ):
        return False
    return bias is None or (
        bias.dtype is dtype
        and bias.is_cpu
        and bias.layout is STRIDED
        and not bias.is_nested
        and bias.shape == extents[:1]
    )


def _in_full_float32() -> bool:
    """Say whether PyTorch's products are; it refuses to tell once its newer settings are used."""
    try:
        return bool(torch.get_float32_matmul_precision() == "highest")
    except RuntimeError:
        return False


def sigmoid_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give σ(x weightᵀ + bias)."""
    return functional.linear(x, weight, bias).sigmoid()


def dense_sigmoid(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Give σ(x w + b)."""
    if b is not None and x.dim() == 2:
        return torch.addmm(b, x, w).sigmoid()
    z = x @ w
    return (z if b is None else z + b).sigmoid()
