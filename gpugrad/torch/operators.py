"""The operations as PyTorch operators: ``torch.ops.gpugrad``.

Each has a kernel for the CPU and one for CUDA (the function of gpugrad with the same name), and
rules: results without data, for ``torch.compile`` and the meta device; a gradient; a tangent; a
batch, for ``torch.func.vmap``. They are made of operators again, so that there are derivatives of
any order. A batch of rows is one call; one of weights is left to PyTorch's products.

With g = ∂E/∂dz for whatever E is computed from dz = dy · σ', the rules of second order are

    ∂E/∂dy = g · σ',   ∂E/∂y = g · dy · (1 − 2y),   or, by the logits, ∂E/∂z = −g · dz · tanh(z/2)

and for dx = dz wᵀ, dw = xᵀ dz and db = Σ dz with gradients gx, gw and gb they are

    g = gx w + x gw + gb,   ∂E/∂x = dz gwᵀ,   ∂E/∂w = gxᵀ dz

of which the last two are the gradients of a product with gx in the place of x and gw in that of w.
docs/derivation.md derives them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

import gpugrad
from gpugrad.torch.host import call
from gpugrad.torch.registration import operator, register
from gpugrad.torch.shapes import (
    expect_alike,
    expect_layer,
    expect_rows,
    expect_shape,
    like_w,
)

Gradients = tuple[Tensor | None, ...]


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


def _unless_read(is_read: bool, tensor: Tensor) -> Tensor:
    """Return what stands for a tensor whose values no gradient reads, without its memory."""
    return tensor if is_read else tensor.new_empty(()).expand(tensor.shape)


def _sum(*terms: Tensor | None) -> Tensor | None:
    """Add those terms that are there."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


# ---- batches


def _batch(
    op: Any, in_pytorch: Any = None, *, weights: tuple[int, ...] = (), sums: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """Return the rule that makes a batch of rows one call, with one more leading dimension.

    PyTorch's products compute the others: of inputs at the places `weights` that have a batch of
    their own, and where those at the places `sums` ask for sums over the rows of each in the batch.
    """

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        moved = (
            one
            if not isinstance(one, Tensor) or (dim is None and i in weights)
            else one.expand(info.batch_size, *one.shape)
            if dim is None
            else one.movedim(dim, 0)
            for i, (one, dim) in enumerate(zip(inputs, in_dims, strict=True))
        )
        is_one = all(in_dims[i] is None for i in weights) and not any(inputs[i] for i in sums)
        with _no_autocast(inputs[0]):
            results = (op if is_one else in_pytorch)(*moved)
        if not isinstance(results, tuple):
            return results, 0
        return results, tuple(0 if one.dim() > 1 else None for one in results)

    return rule


def _rows(tensor: Tensor) -> Tensor:
    """Flatten all between the batch and the last dimension."""
    return tensor[:, None].flatten(1, -2)


def _product_in_pytorch(
    dy: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool, precision: str
) -> tuple[Tensor, Tensor]:
    rows = _rows(dy)
    dx = (rows @ w.mT).view(x.shape) if need_x else x.new_empty(0)
    return dx, _rows(x).mT @ rows if need_w else w.new_empty(0)


def _sum_in_pytorch(dy: Tensor) -> Tensor:
    return _rows(dy).sum(1)


def _sigmoid_bias_in_pytorch(
    dy: Tensor, y: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    dz = sigmoid_backward(dy, y, z)
    return dz, _sum_in_pytorch(dz)


def _gradients_in_pytorch(
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
    dz = sigmoid_backward(dy, y, z)
    dx, dw = _product_in_pytorch(dz, x, w, need_x, need_w, precision)
    return dx, dw, _sum_in_pytorch(dz) if need_b else w.new_empty(0)


def _layer_in_pytorch(
    x: Tensor, w: Tensor, b: Tensor | None, precision: str
) -> tuple[Tensor, Tensor]:
    z = _rows(x) @ w
    if b is not None:
        z = z + b.unsqueeze(-2)
    z = z.view(*x.shape[:-1], w.shape[-1])
    return sigmoid(z, True), z


# ---- y = σ(z)


@operator
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
    return (sigmoid_backward(dy, y, z),)


def _sigmoid_tangent(inputs: Any, results: Any, tangents: Any) -> Tensor:
    z, save_logits = inputs
    y, z = (None, z) if save_logits else (results[0], None)
    return sigmoid_backward(tangents[0], y, z)


register(
    sigmoid,
    fake=_sigmoid_fake,
    save=_save_y_or_z,
    gradient=_sigmoid_gradient,
    tangent=_sigmoid_tangent,
    batch=_batch(sigmoid),
)


# ---- dz


@operator
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
    ctx.save_for_backward(*(one for one in inputs if one is None or isinstance(one, Tensor)))


def _by_y_or_z(g: Tensor, dy: Tensor, y: Any, z: Tensor | None) -> Tensor:
    """Return g times the derivative of dz with respect to what it is computed from."""
    if z is not None:
        return -g * sigmoid_backward(dy, None, z) * torch.tanh(z / 2)
    return g * dy * (1 - 2 * y)


def _through_dz(
    ctx: Any, g: Tensor, dy: Tensor, y: Tensor | None, z: Tensor | None, at: tuple[int, int, int]
) -> Gradients:
    """Return the gradients with respect to dy, y and z, which are the inputs `at` these places."""
    need_dy, need_y, need_z = (ctx.needs_input_grad[i] for i in at)
    by_dy = sigmoid_backward(g, y, z) if need_dy else None
    by_y = _by_y_or_z(g, dy, y, None) if need_y and z is None else None
    return by_dy, by_y, _by_y_or_z(g, dy, None, z) if need_z else None


def _tangent_of_dz(
    dy: Tensor, y: Tensor | None, z: Tensor | None, t_dy: Any, t_y: Any, t_z: Any
) -> Tensor | None:
    t = t_y if z is None else t_z
    return _sum(
        None if t_dy is None else sigmoid_backward(t_dy, y, z),
        None if t is None else _by_y_or_z(t, dy, y, z),
    )


def _sigmoid_backward_gradient(ctx: Any, g: Tensor) -> Gradients:
    dy, y, z = ctx.saved_tensors
    return _through_dz(ctx, g, dy, y, z, (0, 1, 2))


def _sigmoid_backward_tangent(inputs: Any, results: Any, tangents: Any) -> Tensor | None:
    return _tangent_of_dz(*inputs, *tangents)


register(
    sigmoid_backward,
    fake=_sigmoid_backward_fake,
    save=_save_inputs,
    gradient=_sigmoid_backward_gradient,
    tangent=_sigmoid_backward_tangent,
    batch=_batch(sigmoid_backward),
)


# ---- db


@operator
def bias_backward(dy: Tensor) -> Tensor:
    """Return db."""
    return call(gpugrad.bias_backward, dy)


def _bias_backward_fake(dy: Tensor) -> Tensor:
    expect_alike("bias_backward", dy=dy)
    expect_rows("bias_backward", dy)
    return dy.new_empty(dy.shape[-1:])


def _save_shape(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.shape = inputs[0].shape


def _bias_backward_gradient(ctx: Any, gb: Tensor) -> Gradients:
    return (gb.expand(ctx.shape),)


def _bias_backward_tangent(inputs: Any, results: Any, tangents: Any) -> Tensor:
    return bias_backward(tangents[0])


register(
    bias_backward,
    fake=_bias_backward_fake,
    save=_save_shape,
    gradient=_bias_backward_gradient,
    tangent=_bias_backward_tangent,
    batch=_batch(_sum_in_pytorch),
)


# ---- dz and db


@operator
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
    g: Any = _sum(gz, gb)
    return _through_dz(ctx, g.expand(dy.shape), dy, y, z, (0, 1, 2))


def _sigmoid_bias_backward_tangent(inputs: Any, results: Any, tangents: Any) -> Gradients:
    t = _tangent_of_dz(*inputs, *tangents)
    return t, None if t is None else bias_backward(t)


register(
    sigmoid_bias_backward,
    fake=_sigmoid_bias_backward_fake,
    save=_save_inputs,
    gradient=_sigmoid_bias_backward_gradient,
    tangent=_sigmoid_bias_backward_tangent,
    batch=_batch(_sigmoid_bias_in_pytorch),
)


# ---- dx and dw


@operator
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
    return by_dy, by_x, by_w


def _tangents_of_product(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    need_x: bool,
    need_w: bool,
    precision: str,
    t_dy: Tensor | None,
    t_x: Tensor | None,
    t_w: Tensor | None,
) -> Gradients:
    """Return t_dy wᵀ + dy t_wᵀ and xᵀ t_dy + t_xᵀ dy."""
    t_dx, t_dw = _of_factors(dy, x, w, t_x, t_w, need_x=need_x, need_w=need_w, precision=precision)
    if t_dy is None:
        return t_dx, t_dw
    by_x, by_w = matmul_backward(t_dy, x, w, need_x, need_w, precision)
    return _sum(t_dx, _if(need_x, by_x)), _sum(t_dw, _if(need_w, by_w))


def _matmul_backward_tangent(inputs: Any, results: Any, tangents: Any) -> Gradients:
    return _tangents_of_product(*inputs, *tangents[:3])


register(
    matmul_backward,
    fake=_matmul_backward_fake,
    save=_save_product,
    gradient=_matmul_backward_gradient,
    tangent=_matmul_backward_tangent,
    batch=_batch(matmul_backward, _product_in_pytorch, weights=(2,), sums=(4,)),
)


# ---- the layer's gradients


@operator
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
    return by_dy, by_y, by_x, by_w, by_z


def _dense_sigmoid_backward_tangent(inputs: Any, results: Any, tangents: Any) -> Gradients:
    dy, y, x, w, z, need_x, need_w, need_b, precision = inputs
    t_dy, t_y, t_x, t_w, t_z = tangents[:5]
    t = _tangent_of_dz(dy, y, z, t_dy, t_y, t_z)
    dz = sigmoid_backward(dy, y, z)
    t_dx, t_dw = _tangents_of_product(dz, x, w, need_x, need_w, precision, t, t_x, t_w)
    return t_dx, t_dw, bias_backward(t) if need_b and t is not None else None


register(
    dense_sigmoid_backward,
    fake=_dense_sigmoid_backward_fake,
    save=_save_layer,
    gradient=_dense_sigmoid_backward_gradient,
    tangent=_dense_sigmoid_backward_tangent,
    batch=_batch(dense_sigmoid_backward, _gradients_in_pytorch, weights=(3,), sums=(6, 7)),
)


# ---- y = σ(x w + b)


@operator
def dense_sigmoid(x: Tensor, w: Tensor, b: Tensor | None, precision: str) -> Tensor:
    """Return y; its gradients are computed from y."""
    return call(gpugrad.dense_sigmoid, x, w, b, precision=precision)


def _dense_sigmoid_fake(x: Tensor, w: Tensor, b: Tensor | None, precision: str) -> Tensor:
    return x.new_empty(expect_forward(x, w, b))


def expect_forward(x: Tensor, w: Tensor, b: Tensor | None) -> Any:
    """Check a layer's operands and return the shape of y."""
    op = "dense_sigmoid"
    expect_alike(op, x=x, w=w, b=b)
    shape = expect_layer(op, x, w)
    expect_shape(op, "b", b, shape[-1:], w=w)
    return shape


def _save_layers(ctx: Any, inputs: Any, y_or_z: Tensor) -> None:
    x, w, _b, ctx.precision = inputs
    need_x, need_w, _need_b = ctx.needs_input_grad[:3]
    ctx.save_for_backward(_unless_read(need_w, x), _unless_read(need_x, w), y_or_z)


def _save_with_y(ctx: Any, inputs: Any, output: Tensor) -> None:
    _save_layers(ctx, inputs, output)


def _dense_sigmoid_gradient(ctx: Any, dy: Tensor) -> Gradients:
    x, w, y = ctx.saved_tensors
    return layer_gradients(ctx, dy, y, x, w, None)


def layer_gradients(
    ctx: Any, dy: Tensor, y: Tensor | None, x: Tensor, w: Tensor, z: Tensor | None
) -> Gradients:
    """Return dx, dw and db as far as the first three inputs need them."""
    need = ctx.needs_input_grad[:3]
    results = dense_sigmoid_backward(dy, y, x, w, z, *need, ctx.precision)
    return tuple(map(_if, need, results))


def _tangent_of_logits(inputs: Any, tangents: Any, z: Tensor) -> Tensor:
    x, w = inputs[:2]
    t_x, t_w, t_b = tangents[:3]
    t: Any = _sum(_into_product(x, w, t_x, t_w), t_b)
    return t.expand(z.shape)


def _dense_sigmoid_tangent(inputs: Any, results: Any, tangents: Any) -> Tensor:
    (y,) = results
    return sigmoid_backward(_tangent_of_logits(inputs, tangents, y), y, None)


register(
    dense_sigmoid,
    fake=_dense_sigmoid_fake,
    save=_save_with_y,
    gradient=_dense_sigmoid_gradient,
    tangent=_dense_sigmoid_tangent,
    batch=_batch(dense_sigmoid, lambda *inputs: _layer_in_pytorch(*inputs)[0], weights=(1, 2)),
)


@operator
def dense_sigmoid_and_logits(
    x: Tensor, w: Tensor, b: Tensor | None, precision: str
) -> tuple[Tensor, Tensor]:
    """Return y and the logits z, from which y's gradients are computed."""
    expect_forward(x, w, b)  # PyTorch would broadcast b
    with _no_autocast(x):
        z = torch.nn.functional.linear(x, w.t(), b)
    return call(gpugrad.sigmoid, z), z


def _dense_sigmoid_and_logits_fake(
    x: Tensor, w: Tensor, b: Tensor | None, precision: str
) -> tuple[Tensor, Tensor]:
    shape = expect_forward(x, w, b)
    return x.new_empty(shape), x.new_empty(shape)


def _save_with_z(ctx: Any, inputs: Any, output: Any) -> None:
    _save_layers(ctx, inputs, output[1])


def logits_gradients(
    ctx: Any, dy: Tensor | None, gz: Tensor | None, x: Tensor, w: Tensor, z: Tensor
) -> Gradients:
    """Return dx, dw and db from gradients with respect to y and, in second order, z itself."""
    if gz is None and dy is not None:
        return layer_gradients(ctx, dy, None, x, w, z)
    need_x, need_w, need_b = ctx.needs_input_grad[:3]
    dz = _sum(gz, None if dy is None else sigmoid_backward(dy, None, z))
    dx, dw = matmul_backward(dz, x, w, need_x, need_w, ctx.precision)
    return _if(need_x, dx), _if(need_w, dw), bias_backward(dz) if need_b else None


def _dense_sigmoid_and_logits_gradient(ctx: Any, dy: Tensor | None, gz: Tensor | None) -> Gradients:
    x, w, z = ctx.saved_tensors
    return logits_gradients(ctx, dy, gz, x, w, z)


def _dense_sigmoid_and_logits_tangent(inputs: Any, results: Any, tangents: Any) -> Gradients:
    _, z = results
    t = _tangent_of_logits(inputs, tangents, z)
    return sigmoid_backward(t, None, z), t


register(
    dense_sigmoid_and_logits,
    fake=_dense_sigmoid_and_logits_fake,
    save=_save_with_z,
    gradient=_dense_sigmoid_and_logits_gradient,
    tangent=_dense_sigmoid_and_logits_tangent,
    batch=_batch(dense_sigmoid_and_logits, _layer_in_pytorch, weights=(1, 2)),
)


# ---- what FlopCounterMode counts: two for each multiply-add of a product


def _flops_of_layer(x: Any, w: Any, *_: Any, **options: Any) -> int:
    return int(2 * math.prod(x) * w[1])


def _flops_of_product(
    dy: Any, x: Any, w: Any, need_x: bool, need_w: bool, *_: Any, **options: Any
) -> int:
    return (need_x + need_w) * _flops_of_layer(x, w)


def _flops_of_gradients(
    dy: Any, y: Any, x: Any, w: Any, z: Any, need_x: bool, need_w: bool, *_: Any, **options: Any
) -> int:
    return (need_x + need_w) * _flops_of_layer(x, w)


for _name, _formula in (
    ("dense_sigmoid", _flops_of_layer),
    ("dense_sigmoid_and_logits", _flops_of_layer),
    ("matmul_backward", _flops_of_product),
    ("dense_sigmoid_backward", _flops_of_gradients),
):
    register_flop_formula(getattr(torch.ops.gpugrad, _name))(_formula)
