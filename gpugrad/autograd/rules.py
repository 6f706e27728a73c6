"""The gradients of the primitives, composed of functions that are differentiable themselves.

A rule takes the gradient of the result, the names of the arguments to differentiate with respect
to, the result and the arguments. It returns gradients by name.
"""

import inspect
from collections.abc import Callable
from typing import Any

from autograd import numpy as anp
from autograd.extend import defvjp_argnums
from autograd.tracer import getval

from gpugrad.arrays.call import Array
from gpugrad.autograd import primitives
from gpugrad.autograd.functions import (
    bias_backward,
    dense_sigmoid_backward,
    matmul_backward,
    sigmoid_backward,
)
from gpugrad.autograd.primitives import Names

Rule = Callable[..., dict[str, Array]]


def _rule_of(primitive: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule; its last parameters are the primitive's."""

    def decorate(rule: Rule) -> Rule:
        names = tuple(inspect.signature(rule).parameters)[3:]

        def vjp_of(argnums: Any, result: Any, args: Any, _: Any) -> Callable[[Any], list[Array]]:
            wanted = tuple(names[number] for number in argnums)

            def vjp(g: Any) -> list[Array]:
                found = rule(_as_result(g, result), wanted, result, *args)
                return [found[name] for name in wanted]

            return vjp

        defvjp_argnums(primitive, vjp_of)
        return rule

    return decorate


def _as_result(g: Any, result: Any) -> Any:
    """Cast a gradient to the dtype of its result: rules of autograd may promote it."""
    value = getval(result)
    if isinstance(value, tuple):
        return [_cast(g[index], one.dtype) for index, one in enumerate(value)]
    return _cast(g, value.dtype)


def _cast(g: Any, dtype: Any) -> Any:
    return g if getattr(g, "dtype", dtype) == dtype else g.astype(dtype)


@_rule_of(primitives.sigmoid)
def _sigmoid_rule(
    dy: Array, wanted: Names, y: Array, z: Array, save_logits: bool
) -> dict[str, Array]:
    return {"z": sigmoid_backward(dy, None, z=z) if save_logits else sigmoid_backward(dy, y)}


@_rule_of(primitives.dense_sigmoid)
def _dense_sigmoid_rule(
    dy: Array, wanted: Names, y: Array, x: Array, w: Array, b: Array, known: Array, precision: str
) -> dict[str, Array]:
    z = None if known is None else primitives.logits(x, w, b, known, precision)
    grads = dense_sigmoid_backward(
        dy, y if z is None else None, x, w, z=z, wrt=wanted, precision=precision
    )
    return {name: getattr(grads, f"d{name}") for name in wanted}


@_rule_of(primitives.logits)
def _logits_rule(
    dz: Array, wanted: Names, z: Array, x: Array, w: Array, b: Array, known: Array, precision: str
) -> dict[str, Array]:
    wrt = set(wanted) - {"b"}
    found = {"b": bias_backward(dz)} if "b" in wanted else {}
    if wrt:
        grads = matmul_backward(dz, x, w, wrt=wrt, precision=precision)
        found |= {name: getattr(grads, f"d{name}") for name in wrt}
    return found


@_rule_of(primitives.rows)
def _rows_rule(g: Array, wanted: Names, rows: Array, b: Array, shape: Any) -> dict[str, Array]:
    return {"b": bias_backward(g)}


@_rule_of(primitives.bias_backward)
def _bias_backward_rule(g: Array, wanted: Names, db: Array, dy: Array) -> dict[str, Array]:
    return {"dy": primitives.rows(g, anp.shape(dy))}


@_rule_of(primitives.tanh_half)
def _tanh_half_rule(g: Array, wanted: Names, tanh: Array, z: Array) -> dict[str, Array]:
    return {"z": 2 * sigmoid_backward(g, None, z=z)}


@_rule_of(primitives.sigmoid_backward)
def _sigmoid_backward_rule(
    g: Array, wanted: Names, dz: Any, dy: Array, y: Array, z: Array
) -> dict[str, Array]:
    found = {}
    if "dy" in wanted or "z" in wanted:
        found["dy"] = sigmoid_backward(g, y, z=z)
    if "y" in wanted:
        found["y"] = g * dy * (1 - 2 * y)
    if "z" in wanted:
        found["z"] = -dy * found["dy"] * primitives.tanh_half(z)
    return found


@_rule_of(primitives.sigmoid_bias_backward)
def _sigmoid_bias_backward_rule(
    g: Any, wanted: Names, grads: Any, dy: Array, y: Array, z: Array
) -> dict[str, Array]:
    gz, gb = g
    return _sigmoid_backward_rule(gz + primitives.rows(gb, anp.shape(dy)), wanted, None, dy, y, z)


@_rule_of(primitives.matmul_backward)
def _matmul_backward_rule(
    g: Any, wanted: Names, grads: Any, dy: Array, x: Array, w: Array, wrt: Names, precision: str
) -> dict[str, Array]:
    given = dict(zip((name for name in ("x", "w") if name in wrt), g, strict=True))
    found = _of_products(dy, x, w, given, wanted, precision)
    if "dy" in wanted:
        found["dy"] = _of_dz(x, w, given, anp.shape(dy), precision)
    return found


@_rule_of(primitives.dense_sigmoid_backward)
def _dense_sigmoid_backward_rule(
    g: Any,
    wanted: Names,
    grads: Any,
    dy: Array,
    y: Array,
    x: Array,
    w: Array,
    z: Array,
    wrt: Names,
    precision: str,
) -> dict[str, Array]:
    given = dict(zip((name for name in ("x", "w", "b") if name in wrt), g, strict=True))
    found = {}
    if "x" in wanted or "w" in wanted:
        found = _of_products(sigmoid_backward(dy, y, z=z), x, w, given, wanted, precision)
    if not {"dy", "y", "z"}.isdisjoint(wanted):
        gz = _of_dz(x, w, given, anp.shape(dy), precision)
        found |= _sigmoid_backward_rule(gz, wanted, None, dy, y, z)
    return found


def _of_products(
    dz: Array, x: Array, w: Array, g: dict[str, Array], wanted: Names, precision: str
) -> dict[str, Array]:
    """Return the gradients of x and w, dz gwᵀ and gxᵀ dz, from gx and gw of dx and dw.

    This is `matmul_backward` with gx and gw for x and w.
    """
    wrt = [name for name in ("x", "w") if name in wanted]
    if not wrt:
        return {}
    grads = matmul_backward(dz, g.get("x", x), g.get("w", w), wrt=wrt, precision=precision)
    return {name: getattr(grads, f"d{name}") for name in wrt}


def _of_dz(
    x: Array, w: Array, g: dict[str, Array], shape: tuple[int, ...], precision: str
) -> Array:
    """Return the gradient of dz, gx w + x gw + gb, from those of dx, dw and db in `g`."""
    terms = []
    if "x" in g:
        terms.append(primitives.logits(g["x"], w, g.get("b"), None, precision))
    elif "b" in g:
        terms.append(primitives.rows(g["b"], shape))
    if "w" in g:
        terms.append(primitives.logits(x, g["w"], None, None, precision))
    return sum(terms[1:], terms[0])
