"""Gradients of a layer that are added to float32 buffers in its backward pass."""

import os
import threading
from typing import Any

import torch

import gpugrad
from gpugrad.errors import GpugradError
from gpugrad.torch import operators
from gpugrad.torch.errors import TorchArgumentError, as_runtime_error

HALVES = (torch.float16, torch.bfloat16)

_adding = threading.RLock()  # backward passes of several threads may add to the same buffers


def _forked() -> None:
    global _adding
    _adding = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class IntoMainGrad(torch.autograd.Function):  # type: ignore[misc]  # it is Any
    """y = σ(x w + b), whose backward pass adds to the main_grad of the parameters.

    w and b are the values of weightᵀ and bias, in the dtype to compute in.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Any, weight: Any, bias: Any, w: Any, b: Any, precision: str, save_logits: bool
    ) -> Any:
        if save_logits:
            y, z = operators.dense_sigmoid_and_logits(x, w, b, precision)
        else:
            y, z = operators.dense_sigmoid(x, w, b, precision), None
        ctx.save_for_backward(x, w, y if z is None else z)
        ctx.parameters, ctx.precision, ctx.save_logits = (weight, bias), precision, save_logits
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:  # noqa: D102
        if torch.is_grad_enabled():
            raise TorchArgumentError(
                "sigmoid_linear: main_grad=True has no second derivatives, expected a backward "
                "pass without create_graph"
            )
        x, w, y_or_z = ctx.saved_tensors
        y, z = (None, y_or_z) if ctx.save_logits else (y_or_z, None)
        names = ("x", "w", "b")
        wrt = tuple(n for n, need in zip(names, ctx.needs_input_grad[:3], strict=True) if need)
        weight, bias = ctx.parameters
        with _adding:
            dw = main_grad_of(weight, x.dtype, "weight").t() if "w" in wrt else None
            db = main_grad_of(bias, x.dtype, "bias") if "b" in wrt else None
            into = dw is not None or db is not None
            try:
                grads = gpugrad.dense_sigmoid_backward(
                    dy,
                    y,
                    x,
                    w,
                    z=z,
                    wrt=wrt,
                    out=(None, dw, db) if into else None,
                    accumulate=into,
                    precision=ctx.precision,
                )
            except GpugradError as error:
                raise as_runtime_error(error) from None
        return grads.dx, None, None, None, None, None, None


def main_grad_of(parameter: Any, dtype: torch.dtype, name: str) -> Any:
    """Return a parameter's main_grad, of zeros where there is none."""
    wide = torch.float32 if dtype in HALVES else dtype
    buffer = getattr(parameter, "main_grad", None)
    if buffer is None:
        if parameter.is_cuda and torch.cuda.is_current_stream_capturing():
            raise TorchArgumentError(
                f"sigmoid_linear: {name}.main_grad is missing in the capture of a CUDA graph, "
                "whose replays would clear it"
            )
        buffer = parameter.main_grad = torch.zeros_like(
            parameter, dtype=wide, memory_format=torch.contiguous_format, requires_grad=False
        )
    for what, found, expected in (
        ("shape", tuple(buffer.shape), tuple(parameter.shape)),
        ("dtype", buffer.dtype, wide),
        ("device", buffer.device, parameter.device),
    ):
        if found != expected:
            raise TorchArgumentError(
                f"sigmoid_linear: {name}.main_grad has {what} {found}, expected {expected}"
            )
    return buffer
