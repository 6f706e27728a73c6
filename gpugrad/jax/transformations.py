"""The primitive's rules for vmap and grad, composed of the public functions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching

from gpugrad.jax.functions import (
    dense_sigmoid_backward,
    matmul_backward,
    product,
    sigmoid_backward,
    wide,
)
from gpugrad.jax.primitive import Traced, primitive
from gpugrad.operations import SUMS

Named = Mapping[str, Any]

SHARED = ("w", "b")  # without rows


# ---- vmap


def _map(
    operands: Sequence[Any], axes: Sequence[int | None], *, traced: Traced
) -> tuple[list[Any], list[int]]:
    """Map a call over an axis of its operands, as additional rows if possible."""
    named = list(zip(traced.names, operands, axes, strict=True))
    size = next(one.shape[axis] for _, one, axis in named if axis is not None)
    shared = all(axis is None for name, _, axis in named if name in SHARED)
    as_rows = shared and not any(name in SUMS for name in traced.results)
    at = traced.batch if as_rows else 0  # before the leading dimensions of rows, or before all
    arrays = []
    for name, one, axis in named:
        array = one
        if axis is not None:
            array = jnp.moveaxis(one, axis, at)
        elif not as_rows:
            array = jnp.expand_dims(one, at)
        elif name not in SHARED:
            shape = (*one.shape[:at], size, *one.shape[at:])
            array = jnp.broadcast_to(jnp.expand_dims(one, at), shape)
        arrays.append(array)
    mapped = traced if as_rows else replace(traced, batch=traced.batch + 1)
    results = primitive.bind(*arrays, traced=mapped)
    return results, [at] * len(results)


batching.primitive_batchers[primitive] = _map


# ---- grad


def _differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, traced: Traced) -> Any:
    """Return results and their tangents, through a custom_vjp that JAX transposes."""
    moving = [i for i, one in enumerate(tangents) if type(one) is not ad.Zero]
    if traced.is_layer_of_logits:
        moving = [i for i in moving if traced.names[i] != "z"]  # the gradient goes to x, w and b
    wanted = [traced.names[i] for i in moving]

    def forward(*_: Any) -> Any:
        results = primitive.bind(*primals, traced=traced)
        return results, (primals, results)

    def backward(saved: Any, grads: Any) -> Any:
        operands, results = saved
        return tuple(_mapped_gradients(traced, wanted, operands, results, grads))

    function = jax.custom_vjp(lambda *_: primitive.bind(*primals, traced=traced))
    function.defvjp(forward, backward)
    return jax.jvp(function, [primals[i] for i in moving], [tangents[i] for i in moving])


ad.primitive_jvps[primitive] = _differentiate


def _mapped_gradients(
    traced: Traced,
    wanted: Sequence[str],
    operands: Sequence[Any],
    results: Sequence[Any],
    grads: Sequence[Any],
) -> list[Any]:
    """Return the gradients of the wanted operands in order; None for those that are 0."""

    def rule(operands: Any, results: Any, grads: Any) -> list[Any]:
        found = _gradients(
            replace(traced, batch=0),
            wanted,
            dict(zip(traced.names, operands, strict=True)),
            dict(zip(traced.results, results, strict=True)),
            dict(zip(traced.results, grads, strict=True)),
        )
        return [found.get(name) for name in wanted]

    axes = range(traced.batch)
    single = [tuple(axis for axis in axes if one.shape[axis] == 1) for one in operands]
    for axis in reversed(axes):
        rule = jax.vmap(rule, ([None if axis in ones else 0 for ones in single], 0, 0))
    once = [jnp.squeeze(one, ones) for one, ones in zip(operands, single, strict=True)]
    found = dict(zip(wanted, rule(once, results, grads), strict=True))
    for name, ones in zip(traced.names, single, strict=True):
        if ones and found.get(name) is not None:
            found[name] = found[name].sum(ones, keepdims=True)
    return [found[name] for name in wanted]


def _gradients(
    traced: Traced, wanted: Sequence[str], operands: Named, results: Named, grads: Named
) -> dict[str, Any]:
    """Return the gradients of operands, computed by differentiable functions."""
    precision = traced.precision
    if traced.op == "sigmoid":
        logits = operands["z"] if traced.save_logits else None
        return {"z": sigmoid_backward(grads["y"], results["y"], z=logits)}
    if traced.op == "dense_sigmoid":
        dy, x, w = grads["y"], operands["x"], operands["w"]
        layer = dense_sigmoid_backward(
            dy, results["y"], x, w, z=operands.get("z"), wrt=wanted, precision=precision
        )
        return {name: getattr(layer, f"d{name}") for name in wanted}
    found: dict[str, Any] = {}
    dy, y, z = operands["dy"], operands.get("y"), operands.get("z")
    is_linear = y is None and z is None  # dz = dy
    if {"dy", "y", "z"} & set(wanted):
        g, dtype = _gradient_of_dz(operands, grads), wide(dy.dtype)
        if "dy" in wanted:
            found["dy"] = g if is_linear else sigmoid_backward(g, y, z=z)
        if "y" in wanted:
            slope = 1 - 2 * operands["y"].astype(dtype)
            found["y"] = (g.astype(dtype) * dy.astype(dtype) * slope).astype(dy.dtype)
        if "z" in wanted:
            dz = sigmoid_backward(dy, None, z=z)
            slope = -jnp.tanh(operands["z"].astype(dtype) / 2)
            found["z"] = (g.astype(dtype) * dz.astype(dtype) * slope).astype(dy.dtype)
    # With gx and gw for x and w; if one is missing, x or w serves for its shape.
    x, w = grads.get("dx", operands.get("x")), grads.get("dw", operands.get("w"))
    wrt = [name for name, of in (("x", "dw"), ("w", "dx")) if name in wanted and of in grads]
    if wrt:
        pair: Any
        if is_linear:
            pair = matmul_backward(dy, x, w, wrt=wrt, precision=precision)
        else:
            pair = dense_sigmoid_backward(dy, y, x, w, z=z, wrt=wrt, precision=precision)
        found |= {name: getattr(pair, f"d{name}") for name in wrt}
    return found


def _gradient_of_dz(operands: Named, grads: Named) -> Any:
    """Return the gradient of dz, gz + gx w + x gw + gb, from those in `grads`."""
    dy = operands["dy"]
    terms = [grads[name].astype(wide(dy.dtype)) for name in ("dz", "db") if name in grads]
    if "dx" in grads:
        terms.append(product(grads["dx"], operands["w"]))
    if "dw" in grads:
        terms.append(product(operands["x"], grads["dw"]))
    return jnp.broadcast_to(reduce(jnp.add, terms), dy.shape).astype(dy.dtype)
