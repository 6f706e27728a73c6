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
DTYPES = (torch.float32, torch.float64)  # 16-bit logits would be rounded before the sigmoid


def are_quicker_in_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Say whether a layer, x (..., k) and weight (m, k), is left to PyTorch.

    What does not fit is not, for the operators have the error messages; nor what is compiled, nor
    what has been allowed to be computed in less than float32.
    """
    for one in (x, weight, bias):  # not all(): it would take as long as everything below
        if one is not None and not (
            one.is_cpu
            and one.dtype is x.dtype
            and one.layout is torch.strided
            and not one.is_nested
        ):
            return False
    return (
        x.dtype in DTYPES
        and x.dim() > 0
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and x.numel() * weight.shape[0] < FEW
        and (bias is None or bias.shape == weight.shape[:1])
        and not torch.compiler.is_compiling()
        and _in_full_float32()
    )


def _in_full_float32() -> bool:
    """Say whether PyTorch's products are; it refuses to tell once its newer settings are used."""
    try:
        return bool(torch.get_float32_matmul_precision() == "highest")
    except RuntimeError:
        return False


def sigmoid_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give σ(x weightᵀ + bias)."""
    return functional.linear(x, weight, bias).sigmoid_()


def dense_sigmoid(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Give σ(x w + b)."""
    if b is not None and x.dim() == 2:
        return torch.addmm(b, x, w).sigmoid_()
    z = x @ w
    return (z if b is None else z + b).sigmoid_()
