"""Layers on the CPU that PyTorch's own functions compute in less time.

A training step of a layer of 64 × 64 × 64 takes PyTorch 54 µs. Through an operator that is written
in Python it takes 147, for Python is entered forward and backward. PyTorch's products are computed
on threads that are awake, those of NumPy at these sizes on one, so that bits depend on no number of
threads. All seven shapes of up to 2²⁵ multiply-adds that were tried were faster in PyTorch, 1.25 to
2.7 times, and eight of nine from 2²⁶ on were not, 0.59 to 0.9 times; 1024 × 784 × 128 was, 1.14
times (two cores, float32).
What is below the smallest normal number of float32 is 0 in PyTorch.
"""

from typing import Any

import torch
from torch import Tensor

FEW = 1 << 26  # multiply-adds of a product
STRIDED = torch.strided
DTYPES = (torch.float32, torch.float64)  # 16-bit logits would be rounded before the sigmoid


def are_quicker_in_pytorch(x: Any, weight: Any, bias: Any) -> bool:
    """Return whether a layer, x (..., k) and weight (m, k), is left to PyTorch.

    What does not fit is not, for the operators have the error messages; nor what is compiled, nor
    what is or may be computed in less than float32. Every attribute that is asked for here takes
    0.05 µs of a step's 50, and every function 0.1.
    """
    if not (isinstance(x, Tensor) and isinstance(weight, Tensor)) or (
        x.is_nested or weight.is_nested
    ):
        return False
    dtype, rows, extents = x.dtype, x.shape, weight.shape
    if (
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
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    if bias is not None and not (
        isinstance(bias, Tensor)
        and not bias.is_nested
        and bias.dtype is dtype
        and bias.is_cpu
        and bias.layout is STRIDED
        and bias.shape == extents[:1]
    ):
        return False
    try:
        return bool(torch.get_float32_matmul_precision() == "highest")
    except RuntimeError:  # it refuses to tell once PyTorch's newer settings are used
        return False
