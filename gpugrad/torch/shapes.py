"""What the operators take and give, told without data: shapes, dtypes, devices and strides.

The checks are those of gpugrad's functions, made of comparisons that PyTorch can trace with
symbolic sizes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpugrad.arrays.kinds import DTYPES
from gpugrad.errors import DeviceError
from gpugrad.torch.errors import TorchDTypeError, TorchShapeError

SUPPORTED = tuple(getattr(torch, name) for name in DTYPES)


def expect_alike(op: str, **tensors: Tensor | None) -> None:
    """Check that tensors are dense, of one supported dtype, on one device."""
    first_name, first = next((n, t) for n, t in tensors.items() if t is not None)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.layout is not torch.strided:
            raise TorchDTypeError(
                f"{op}: {name} has layout {tensor.layout}, expected a dense strided tensor"
            )
        if tensor.dtype not in SUPPORTED:
            raise TorchDTypeError(
                f"{op}: {name} has dtype {_name(tensor)}, expected one of {', '.join(DTYPES)}"
            )
        if tensor.device != first.device:
            raise DeviceError(
                f"{op}: {name} is on device {tensor.device}, expected {first.device} "
                f"because {first_name} is there"
            )
        if tensor.dtype != first.dtype:
            raise TorchDTypeError(
                f"{op}: {name} has dtype {_name(tensor)}, expected {_name(first)} "
                f"because {first_name} has dtype {_name(first)}"
            )


def expect_shape(
    op: str, name: str, tensor: Tensor | None, expected: Any, **because: Tensor
) -> None:
    """Check a tensor's shape, which follows from those of the tensors in `because`."""
    if tensor is None:
        return

    def message() -> str:
        told = " and ".join(f"{n} has shape {tuple(t.shape)}" for n, t in because.items())
        return f"{op}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}" + (
            f" because {told}" if told else ""
        )

    _expect(tensor.dim() == len(expected), message)
    for extent, wanted in zip(tensor.shape, expected, strict=True):
        _expect(extent == wanted, message)


def expect_rows(op: str, dy: Tensor) -> None:
    """Check that dy (..., m) has a last dimension."""
    _expect(dy.dim() >= 1, lambda: f"{op}: dy has shape (), expected (..., m)")


def expect_layer(op: str, x: Tensor, w: Tensor) -> Any:
    """Check x (..., k) and w (k, m) against each other and give the shape of y (..., m)."""
    _expect(x.dim() >= 1, lambda: f"{op}: x has shape (), expected (..., k)")
    _expect(w.dim() == 2, lambda: f"{op}: w has shape {tuple(w.shape)}, expected (k, m)")
    expect_shape(op, "w", w, (x.shape[-1], w.shape[1]), x=x)
    return (*x.shape[:-1], w.shape[1])


def like_w(w: Tensor) -> Tensor:
    """Return an empty dw (k, m), which has w's memory order, C or Fortran."""
    k, m = w.shape
    if w.t().is_contiguous() and not w.is_contiguous():
        return w.new_empty((m, k)).t()
    return w.new_empty((k, m))


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _expect(condition: Any, message: Callable[[], str]) -> None:
    """Check a comparison of sizes, which PyTorch may know as symbols alone."""
    torch._check_with(TorchShapeError, condition, message)
