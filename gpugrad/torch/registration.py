"""Operators of PyTorch's dispatcher that keep every transformation.

The gradients of ``torch.library.custom_op`` are refused under torch.func, and it has no forward
mode. Here the kernel of the key Autograd is an autograd function of a single level: it sees the
tensors of one level of torch.func, as the kernels of PyTorch's own operators do, and what it calls
below goes on to the next.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_library = torch.library.Library("gpugrad", "DEF")


def operator(function: Callable[..., Any]) -> Any:
    """Define ``torch.ops.gpugrad.<name>``, computed by the same function on CPU and CUDA."""
    name = function.__name__
    _library.define(name + torch.library.infer_schema(function, mutates_args=()))
    for device in ("CPU", "CUDA"):
        _library.impl(name, function, device)
    return getattr(torch.ops.gpugrad, name).default


def register(
    op: Any,
    *,
    fake: Callable[..., Any],
    save: Callable[..., None],
    gradient: Callable[..., Any],
    tangent: Callable[..., Any],
    batch: Callable[..., Any],
) -> None:
    """Register the rules of an operator.

    Parameters
    ----------
    op : OpOverload
    fake : callable
        Returns results without data from the inputs.
    save : callable
        Saves in ctx, from inputs and results, what `gradient` reads.
    gradient : callable
        Returns the gradients of the tensors among the inputs, which come first, from ctx and the
        gradients of the results, of which not all are None.
    tangent : callable
        Returns the tangents of the results from inputs, results and the inputs' tangents. What is
        zero may be None.
    batch : callable
        Returns results and their batch dimensions, as for torch.library.register_vmap.
    """
    name, below = op._schema.name, torch._C._after_autograd_keyset
    torch.library.register_fake(name, fake, lib=_library)
    torch.library.register_vmap(name, batch, lib=_library)

    def forward(*inputs: Any) -> Any:
        *operands, keyset = inputs
        # PyTorch turns both modes off, which levels of torch.func below need
        with (
            torch.enable_grad(),
            forward_ad._set_fwd_grad_enabled(True),
            torch._C._AutoDispatchBelowAutograd(),
        ):
            return op.redispatch(keyset & below, *operands)

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        save(ctx, inputs[:-1], output)
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.inputs = [None if isinstance(one, Tensor) else one for one in inputs[:-1]]
        tensors = (one if isinstance(one, Tensor) else None for one in inputs[:-1])
        ctx.save_for_forward(*tensors, *outputs)

    def backward(ctx: Any, *gradients: Any) -> Any:
        given = any(one is not None for one in gradients)
        results = gradient(ctx, *gradients) if given else ()
        return *results, *(None,) * (len(ctx.needs_input_grad) - len(results))

    def jvp(ctx: Any, *tangents: Any) -> Any:
        saved, count = ctx.saved_tensors, len(ctx.inputs)
        inputs = [  # without their own tangents, which are not differentiated
            other if tensor is None else forward_ad.unpack_dual(tensor).primal
            for tensor, other in zip(saved[:count], ctx.inputs, strict=True)
        ]
        with forward_ad._set_fwd_grad_enabled(True):
            results = tangent(inputs, saved[count:], tangents[:-1])
        several = isinstance(results, tuple)
        given = zip(saved[count:], results if several else (results,), strict=True)
        complete = tuple(torch.zeros_like(like) if one is None else one for like, one in given)
        return complete if several else complete[0]

    rules = {one.__name__: staticmethod(one) for one in (forward, setup_context, backward, jvp)}
    applied: Any = type(f"gpugrad_{op._opname}", (_SingleLevelFunction,), rules)

    def differentiable(keyset: Any, *inputs: Any) -> Any:
        if not _is_differentiated(inputs):
            with torch._C._AutoDispatchBelowAutograd():
                return op.redispatch(keyset & below, *inputs)
        with enable_single_level_autograd_function():
            return applied.apply(*inputs, keyset)

    _library.impl(op._opname, differentiable, "Autograd", with_keyset=True)


def _is_differentiated(inputs: tuple[Any, ...]) -> bool:
    """Return whether a call may be part of a derivative.

    Graphs that are being compiled enter forward mode without forward_ad's level, but in a mode.
    """
    return bool(
        (torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs))
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )
