"""The operations as PyTorch operators: ``torch.ops.gpugrad``.

Each has a kernel for the CPU and one for CUDA (the function of gpugrad with the same name), a rule
that tells shapes without data, for ``torch.compile`` and the meta device, and a gradient. Gradients
are made of operators again, so that there are derivatives of any order.

With g = ∂E/∂dz for whatever E is computed from dz = dy · σ', the rules of second order are

    ∂E/∂dy = g · σ',   ∂E/∂y = g · dy · (1 − 2y),   or, by the logits, ∂E/∂z = −g · dz · tanh(z/2)

and for dx = dz wᵀ, dw = xᵀ dz and db = Σ dz with gradients gx, gw and gb they are

    g = gx w + x gw + gb,   ∂E/∂x = dz gwᵀ,   ∂E/∂w = gxᵀ dz

of which the last two are the gradients of a product with gx in the place of x and gw in that of w.
docs/derivation.md derives them.
"""

from typing import Any

import torch
from torch import Tensor

import gpugrad
from gpugrad.torch.host import call
from gpugrad.torch.shapes import (
    expect_alike,
    expect_layer,
    expect_rows,
    expect_shape,
    like_w,
)

Gradients = tuple[Tensor | None, ...]


def _operator(function: Any) -> Any:
    """Define ``torch.ops.gpugrad.<name>`` for CPU and CUDA."""
    define = torch.library.custom_op(
        f"gpugrad::{function.__name__}", mutates_args=(), device_types=("cpu", "cuda")
    )
    return define(function)


def _register(operator: Any, *, fake: Any, save: Any, gradient: Any) -> None:
    """Register what an operator gives without data, what it saves, and its gradient."""
    operator.register_fake(fake)
    operator.register_autograd(gradient, setup_context=save)


def _names(**wanted: bool) -> tuple[str, ...]:
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def _complete(results: Any, like: Tensor) -> Any:
    """Put an empty tensor in the place of each result that is None."""
    return tuple(like.new_empty(0) if one is None else one for one in results)


def _if(wanted: bool, gradient: Tensor) -> Tensor | None:
    return gradient if wanted else None


def _no_autocast(tensor: Tensor) -> Any:
    """Keep PyTorch's products in the dtype of their operands: operators are cast before."""
    return torch.autocast("cuda" if tensor.is_cuda else "cpu", enabled=False)


# ---- y = σ(z)


@_operator
def sigmoid(z: Tensor, save_logits: bool) -> Tensor:
    """Return y; its gradient is computed from z if `save_logits`, else from y."""
    return call(gpugrad.sigmoid, z)


def _sigmoid_fake(z: Tensor, save_logits: bool) -> Tensor:
    expect_alike("sigmoid", z=z)
    return z.new_empty(z.shape)


def _save_y_or_z(ctx: Any, inputs: Any, output: Tensor) -> None:
    z, ctx.save_logits = inputs
    ctx.save_for_backward(z if ctx.save_logits else output)


def _sigmoid_gradient(ctx: Any, dy: Tensor) -> Gradients:
    (y_or_z,) = ctx.saved_tensors
    y, z = (None, y_or_z) if ctx.save_logits else (y_or_z, None)
    return sigmoid_backward(dy, y, z), None


_register(sigmoid, fake=_sigmoid_fake, save=_save_y_or_z, gradient=_sigmoid_gradient)


# ---- dz


@_operator
def sigmoid_backward(dy: Tensor, y: Tensor | None, z: Tensor | None) -> Tensor:
    """Return dz, from the logits where they are given, else from y."""
    return call(gpugrad.sigmoid_backward, dy, y, z=z)


def _sigmoid_backward_fake(dy: Tensor, y: Tensor | None, z: Tensor | None) -> Tensor:
    expect_alike("sigmoid_backward", dy=dy, y=y, z=z)
    expect_shape("sigmoid_backward", "y", y, dy.shape, dy=dy)
    expect_shape("sigmoid_backward", "z", z, dy.shape, dy=dy)
    return dy.new_empty(dy.shape)


def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
    """Save all tensors among the inputs, which come first."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*(one for one in inputs if one is None or isinstance(one, Tensor)))


def _through_dz(
    ctx: Any, g: Tensor, dy: Tensor, y: Tensor | None, z: Tensor | None, at: tuple[int, int, int]
) -> Gradients:
    """Return the gradients with respect to dy, y and z, which are the inputs `at` these places."""
    need_dy, need_y, need_z = (ctx.needs_input_grad[i] for i in at)
    by_dy = sigmoid_backward(g, y, z) if need_dy else None
    by_y = by_z = None
    if z is not None:
        by_z = -g * sigmoid_backward(dy, None, z) * torch.tanh(z / 2) if need_z else None
    elif y is not None:
        by_y = g * dy * (1 - 2 * y) if need_y else None
    return by_dy, by_y, by_z


def _sigmoid_backward_gradient(ctx: Any, g: Tensor | None) -> Gradients:
    dy, y, z = ctx.saved_tensors
    if g is None:
        return None, None, None
    return _through_dz(ctx, g, dy, y, z, (0, 1, 2))


_register(
    sigmoid_backward,
    fake=_sigmoid_backward_fake,
    save=_save_inputs,
    gradient=_sigmoid_backward_gradient,
)


# ---- db


@_operator
def bias_backward(dy: Tensor) -> Tensor:
    """Return db."""
    return call(gpugrad.bias_backward, dy)


def _bias_backward_fake(dy: Tensor) -> Tensor:
    expect_alike("bias_backward", dy=dy)
    expect_rows("bias_backward", dy)
    return dy.new_empty(dy.shape[-1:])


def _save_shape(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.shape = inputs[0].shape


def _bias_backward_gradient(ctx: Any, gb: Tensor) -> Tensor:
    return gb.expand(ctx.shape)


_register(
    bias_backward, fake=_bias_backward_fake, save=_save_shape, gradient=_bias_backward_gradient
)


# ---- dz and db


@_operator
def sigmoid_bias_backward(dy: Tensor, y: Tensor | None, z: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return dz and db in one pass."""
    return tuple(call(gpugrad.sigmoid_bias_backward, dy, y, z=z))


def _sigmoid_bias_backward_fake(
    dy: Tensor, y: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    op = "sigmoid_bias_backward"
    expect_alike(op, dy=dy, y=y, z=z)
    expect_rows(op, dy)
    expect_shape(op, "y", y, dy.shape, dy=dy)
    expect_shape(op, "z", z, dy.shape, dy=dy)
    return dy.new_empty(dy.shape), dy.new_empty(dy.shape[-1:])


def _sigmoid_bias_backward_gradient(ctx: Any, gz: Tensor | None, gb: Tensor | None) -> Gradients:
    dy, y, z = ctx.saved_tensors
    g = _sum(gz, gb)
    if g is None:
        return None, None, None
    return _through_dz(ctx, g.expand(dy.shape), dy, y, z, (0, 1, 2))


_register(
    sigmoid_bias_backward,
    fake=_sigmoid_bias_backward_fake,
    save=_save_inputs,
    gradient=_sigmoid_bias_backward_gradient,
)


def _sum(*terms: Tensor | None) -> Tensor | None:
    """Add those terms that are there."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


# ---- dx and dw


@_operator
def matmul_backward(
    dy: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool, precision: str
) -> tuple[Tensor, Tensor]:
    """Return dx = dy wᵀ and dw = xᵀ dy."""
    wrt = _names(x=need_x, w=need_w)
    grads = call(gpugrad.matmul_backward, dy, x, w, wrt=wrt, precision=precision)
    dx, dw = _complete(grads, x)
    return dx, dw


def _matmul_backward_fake(
    dy: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool, precision: str
) -> tuple[Tensor, Tensor]:
    op = "matmul_backward"
    expect_alike(op, dy=dy, x=x, w=w)
    expect_shape(op, "dy", dy, expect_layer(op, x, w), x=x, w=w)
    dx = x.new_empty(x.shape if need_x else 0)
    return dx, like_w(w) if need_w else w.new_empty(0)


def _save_product(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3])
    *ctx.given, ctx.precision = inputs[3:]


def _of_given(ctx: Any, *gradients: Tensor | None) -> Gradients:
    """Leave out the gradients of results that were left out themselves."""
    pairs = zip(ctx.given, gradients, strict=True)
    return tuple(gradient if is_given else None for is_given, gradient in pairs)


def _into_product(x: Tensor, w: Tensor, gx: Tensor | None, gw: Tensor | None) -> Tensor | None:
    """Return the gradient with respect to the factor that both dx and dw have."""
    with _no_autocast(x):
        return _sum(None if gx is None else gx @ w, None if gw is None else x @ gw)


def _of_factors(
    dz: Tensor,
    x: Tensor,
    w: Tensor,
    gx: Tensor | None,
    gw: Tensor | None,
    *,
    need_x: bool,
    need_w: bool,
    precision: str,
) -> Gradients:
    """Return dz gwᵀ and gxᵀ dz, the gradients with respect to x and w of dx and dw."""
    need_x, need_w = need_x and gw is not None, need_w and gx is not None
    if not (need_x or need_w):
        return None, None
    by_x, by_w = matmul_backward(
        dz, x if gx is None else gx, w if gw is None else gw, need_x, need_w, precision
    )
    return _if(need_x, by_x), _if(need_w, by_w)


def _matmul_backward_gradient(ctx: Any, gx: Tensor | None, gw: Tensor | None) -> Gradients:
    dy, x, w = ctx.saved_tensors
    gx, gw = _of_given(ctx, gx, gw)
    need_dy, need_x, need_w = ctx.needs_input_grad[:3]
    by_dy = _into_product(x, w, gx, gw) if need_dy else None
    by_x, by_w = _of_factors(
        dy, x, w, gx, gw, need_x=need_x, need_w=need_w, precision=ctx.precision
    )
    return by_dy, by_x, by_w, None, None, None


_register(
    matmul_backward,
    fake=_matmul_backward_fake,
    save=_save_product,
    gradient=_matmul_backward_gradient,
)


# ---- the layer's gradients


@_operator
def dense_sigmoid_backward(
    dy: Tensor,
    y: Tensor | None,
    x: Tensor,
    w: Tensor,
    z: Tensor | None,
    need_x: bool,
    need_w: bool,
    need_b: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dw and db, from the logits where they are given, else from y."""
    wrt = _names(x=need_x, w=need_w, b=need_b)
    grads = call(gpugrad.dense_sigmoid_backward, dy, y, x, w, z=z, wrt=wrt, precision=precision)
    dx, dw, db = _complete(grads, x)
    return dx, dw, db


def _dense_sigmoid_backward_fake(
    dy: Tensor,
    y: Tensor | None,
    x: Tensor,
    w: Tensor,
    z: Tensor | None,
    need_x: bool,
    need_w: bool,
    need_b: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    op = "dense_sigmoid_backward"
    expect_alike(op, dy=dy, y=y, x=x, w=w, z=z)
    expected = expect_layer(op, x, w)
    for name, tensor in (("dy", dy), ("y", y), ("z", z)):
        expect_shape(op, name, tensor, expected, x=x, w=w)
    dx = x.new_empty(x.shape if need_x else 0)
    dw = like_w(w) if need_w else w.new_empty(0)
    return dx, dw, w.new_empty(w.shape[1:] if need_b else 0)


def _save_layer(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:5])
    *ctx.given, ctx.precision = inputs[5:]


def _dense_sigmoid_backward_gradient(
    ctx: Any, gx: Tensor | None, gw: Tensor | None, gb: Tensor | None
) -> Gradients:
    dy, y, x, w, z = ctx.saved_tensors
    gx, gw, gb = _of_given(ctx, gx, gw, gb)
    need_x, need_w = ctx.needs_input_grad[2:4]
    dz = sigmoid_backward(dy, y, z)
    by_x, by_w = _of_factors(
        dz, x, w, gx, gw, need_x=need_x, need_w=need_w, precision=ctx.precision
    )
    g = _sum(_into_product(x, w, gx, gw), gb)
    by_dy, by_y, by_z = (
        (None, None, None)
        if g is None
        else _through_dz(ctx, g.expand(dy.shape), dy, y, z, (0, 1, 4))
    )
    return by_dy, by_y, by_x, by_w, by_z, None, None, None, None


_register(
    dense_sigmoid_backward,
    fake=_dense_sigmoid_backward_fake,
    save=_save_layer,
    gradient=_dense_sigmoid_backward_gradient,
)


# ---- y = σ(x w + b)


@_operator
def dense_sigmoid(x: Tensor, w: Tensor, b: Tensor | None, precision: str) -> Tensor:
    """Return y; its gradients are computed from y."""
    return call(gpugrad.dense_sigmoid, x, w, b, precision=precision)


def _dense_sigmoid_fake(x: Tensor, w: Tensor, b: Tensor | None, precision: str) -> Tensor:
    return x.new_empty(_expect_forward(x, w, b))


def _expect_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Any:
    op = "dense_sigmoid"
    expect_alike(op, x=x, w=w, b=b)
    shape = expect_layer(op, x, w)
    expect_shape(op, "b", b, shape[-1:], w=w)
    return shape


def _save_with_y(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, w, _b, ctx.precision = inputs
    ctx.save_for_backward(x, w, output)


def _dense_sigmoid_gradient(ctx: Any, dy: Tensor) -> Gradients:
    x, w, y = ctx.saved_tensors
    return *layer_gradients(ctx, dy, y, x, w, None), None


def layer_gradients(
    ctx: Any, dy: Tensor, y: Tensor | None, x: Tensor, w: Tensor, z: Tensor | None
) -> Gradients:
    """Return dx, dw and db as far as the first three inputs need them."""
    need = ctx.needs_input_grad[:3]
    results = dense_sigmoid_backward(dy, y, x, w, z, *need, ctx.precision)
    return tuple(map(_if, need, results))


_register(
    dense_sigmoid, fake=_dense_sigmoid_fake, save=_save_with_y, gradient=_dense_sigmoid_gradient
)


@_operator
def dense_sigmoid_and_logits(
    x: Tensor, w: Tensor, b: Tensor | None, precision: str
) -> tuple[Tensor, Tensor]:
    """Return y and the logits z, from which y's gradients are computed."""
    _expect_forward(x, w, b)  # PyTorch would broadcast b
    with _no_autocast(x):
        z = torch.nn.functional.linear(x, w.t(), b)
    return call(gpugrad.sigmoid, z), z


def _dense_sigmoid_and_logits_fake(
    x: Tensor, w: Tensor, b: Tensor | None, precision: str
) -> tuple[Tensor, Tensor]:
    shape = _expect_forward(x, w, b)
    return x.new_empty(shape), x.new_empty(shape)


def _save_with_z(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.set_materialize_grads(False)
    x, w, _b, ctx.precision = inputs
    ctx.save_for_backward(x, w, output[1])


def logits_gradients(
    ctx: Any, dy: Tensor | None, gz: Tensor | None, x: Tensor, w: Tensor, z: Tensor
) -> Gradients:
    """Return dx, dw and db from gradients with respect to y and, in second order, z itself."""
    if gz is None:
        return (None,) * 3 if dy is None else layer_gradients(ctx, dy, None, x, w, z)
    need_x, need_w, need_b = ctx.needs_input_grad[:3]
    dz = gz if dy is None else gz + sigmoid_backward(dy, None, z)
    dx, dw = matmul_backward(dz, x, w, need_x, need_w, ctx.precision)
    return _if(need_x, dx), _if(need_w, dw), bias_backward(dz) if need_b else None


def _dense_sigmoid_and_logits_gradient(ctx: Any, dy: Tensor | None, gz: Tensor | None) -> Gradients:
    x, w, z = ctx.saved_tensors
    return *logits_gradients(ctx, dy, gz, x, w, z), None


_register(
    dense_sigmoid_and_logits,
    fake=_dense_sigmoid_and_logits_fake,
    save=_save_with_z,
    gradient=_dense_sigmoid_and_logits_gradient,
)
