"""CPU tensors as NumPy arrays, without a copy and without PyTorch's machinery between.

What a tensor costs on this way is measured in microseconds: a layer of 64 × 64 × 64 takes NumPy
about 15, forward or backward.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from gpugrad.arrays import kinds
from gpugrad.arrays.view import Unsupported
from gpugrad.errors import GpugradError
from gpugrad.torch.errors import as_runtime_error

PLAIN = (torch.Tensor, torch.nn.Parameter)


def view(tensor: Any) -> Any:
    """View a dense CPU tensor as a NumPy array.

    Raises
    ------
    TypeError, RuntimeError
        It has no such view, in PyTorch's words: it is sparse, on another device, …
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(kinds.bfloat16())
    return tensor.numpy()


def views(*tensors: Any) -> list[Any] | None:
    """View plain dense CPU tensors as NumPy arrays; None if one of them is anything else."""
    try:
        for tensor in tensors:
            if tensor is not None and type(tensor) not in PLAIN:
                return None
        return [None if tensor is None else view(tensor) for tensor in tensors]
    except (TypeError, RuntimeError, Unsupported):
        return None


def expect_reverse_mode(op: str) -> None:
    """Refuse to lose a tangent: below autograd, where kernels run, it cannot be seen.

    Raises
    ------
    NotImplementedError
    """
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            f"{op}: gpugrad has no forward-mode derivatives (torch.func.jvp, jacfwd, "
            "torch.autograd.forward_ad), expected reverse mode"
        )


def call(function: Callable[..., Any], *tensors: Any, z: Any = None, **options: Any) -> Any:
    """Call a function of gpugrad with tensors; its errors become PyTorch's usual ones."""
    expect_reverse_mode(function.__name__)
    arrays = views(*tensors, z)
    try:
        if arrays is None:
            logits = {} if z is None else {"z": z}
            return function(*tensors, **logits, **options)
        logits = {} if z is None else {"z": arrays[-1]}
        results = function(*arrays[:-1], **logits, **options)
    except GpugradError as error:
        raise as_runtime_error(error) from None
    if type(results) is np.ndarray:
        return kinds.wrap(results, "PyTorch")
    return type(results)(*(None if one is None else kinds.wrap(one, "PyTorch") for one in results))
