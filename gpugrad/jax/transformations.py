"""The rules for vmap, forward mode and grad.

A call's tangents are a primitive of their own, linear in the tangents of the operands: the
derivative of JAX's own expression, in forward mode, and transposed, one call of a backward pass.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gpugrad.jax.expressions import expression, product, wide
from gpugrad.jax.functions import dense_sigmoid_backward, matmul_backward, sigmoid_backward
from gpugrad.jax.primitive import bind, primitive, types_of_results
from gpugrad.jax.traced import Traced
from gpugrad.operations import SUMS

Named = Mapping[str, Any]

SHARED = ("w", "b")  # without rows


# ---- vmap


def _map(operands: Sequence[Any], axes: Sequence[int | None], *, traced: Traced) -> Any:
    """Map a call over an axis of its operands: as more rows, or else as JAX's own expression."""
    named = list(zip(traced.names, operands, axes, strict=True))
    shared = all(axis is None for name, _, axis in named if name in SHARED)
    if not shared or any(name in SUMS for name in traced.results):
        results = jax.vmap(partial(_expression, traced=traced), axes)(*operands)
    else:
        size = next(one.shape[axis] for _, one, axis in named if axis is not None)
        rows = [
            one
            if name in SHARED
            else jnp.moveaxis(one, axis, 0)
            if axis is not None
            else jnp.broadcast_to(one, (size, *one.shape))
            for name, one, axis in named
        ]
        results = bind(traced, *rows)
    return results, [0] * len(results)


def _expression(*operands: Any, traced: Traced) -> list[Any]:
    return expression(traced, dict(zip(traced.names, operands, strict=True)))


batching.primitive_batchers[primitive] = _map


# ---- forward mode


tangents_of = Primitive("gpugrad_tangents")
tangents_of.multiple_results = True


def _differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, traced: Traced) -> Any:
    """Return a call's results and their tangents."""
    results = bind(traced, *primals)
    moving = {
        name: one
        for name, one in zip(traced.names, tangents, strict=True)
        if type(one) is not ad.Zero and not (traced.is_layer_of_logits and name == "z")
    }
    if not moving:  # z alone, whose gradient is that of x, w and b
        return results, [ad.Zero.from_primal_value(one) for one in results]
    wanted = tuple(moving)
    made = tangents_of.bind(*primals, *results, *moving.values(), traced=traced, wanted=wanted)
    return results, made


def _tangents(*operands: Any, traced: Traced, wanted: tuple[str, ...]) -> list[Any]:
    """Compute the tangents of the results from primals, results and the tangents of `wanted`."""
    known = dict(zip(traced.names, operands, strict=False))

    def function(*some: Any) -> list[Any]:
        return expression(traced, known | dict(zip(wanted, some, strict=True)))

    moving = tuple(operands[len(operands) - len(wanted) :])
    made: list[Any] = jax.jvp(function, tuple(known[name] for name in wanted), moving)[1]
    return made


def _map_tangents(operands: Sequence[Any], axes: Sequence[int | None], **static: Any) -> Any:
    results = jax.vmap(partial(_tangents, **static), axes)(*operands)
    return results, [0] * len(results)


def _differentiate_tangents(
    primals: Sequence[Any], tangents: Sequence[Any], **static: Any
) -> tuple[Any, Any]:
    moving = tuple(map(ad.instantiate_zeros, tangents))
    results: tuple[Any, Any] = jax.jvp(partial(_tangents, **static), tuple(primals), moving)
    return results


def _transpose(
    grads: Sequence[Any], *operands: Any, traced: Traced, wanted: tuple[str, ...]
) -> list[Any]:
    """Return the gradients of the operands that are wanted: one call of a backward pass."""
    given, made = len(traced.names), len(traced.results)
    found = _gradients(
        traced,
        wanted,
        dict(zip(traced.names, operands[:given], strict=True)),
        dict(zip(traced.results, operands[given : given + made], strict=True)),
        dict(zip(traced.results, map(ad.instantiate_zeros, grads), strict=True)),
    )
    return [None] * (given + made) + [found.get(name) for name in wanted]


_compiled = jax.jit(_tangents, static_argnames=("traced", "wanted"))
tangents_of.def_impl(_compiled)
tangents_of.def_abstract_eval(
    lambda *operands, traced, wanted: types_of_results(traced, *operands[: len(traced.names)])
)
mlir.register_lowering(tangents_of, mlir.lower_fun(_tangents, multiple_results=True))
ad.primitive_jvps[primitive] = _differentiate
ad.primitive_jvps[tangents_of] = _differentiate_tangents
ad.primitive_transposes[tangents_of] = _transpose
batching.primitive_batchers[tangents_of] = _map_tangents


# ---- grad


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
    terms = [jnp.broadcast_to(one, dy.shape) for one in terms]
    if "dx" in grads:
        terms.append(product(grads["dx"], operands["w"]))
    if "dw" in grads:
        terms.append(product(operands["x"], grads["dw"]))
    return reduce(jnp.add, terms).astype(dy.dtype)
