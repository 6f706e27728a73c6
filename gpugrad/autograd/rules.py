"""The primitives' rules for gradients, made of functions that autograd differentiates in turn.

A rule takes the gradient of the result, the names of the arguments to differentiate with respect
to, the result and the arguments, and gives gradients by name.
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
    """Register the rule of a primitive of autograd, whose last parameters are the primitive's."""

    def decorate(rule: Rule) -> Rule:
        names = tuple(inspect.signature(rule).parameters)[3:]

        def vjp_of(argnums: Any, result: Any, args: Any, _: Any) -> Callable[[Any], list[Array]]:
            asked = tuple(names[number] for number in argnums)

            def vjp(g: Any) -> list[Array]:
                found = rule(_as_result(g, result), asked, result, *args)
                return [found[name] for name in asked]

            return vjp

        defvjp_argnums(primitive, vjp_of)
        return rule

    return decorate


def _as_result(g: Any, result: Any) -> Any:
    """Cast a gradient to the dtype of what it belongs to: autograd's own rules promote some."""
    value = getval(result)
    if isinstance(value, tuple):
        return [_cast(g[index], one.dtype) for index, one in enumerate(value)]
    return _cast(g, value.dtype)


def _cast(g: Any, dtype: Any) -> Any:
    return g if getattr(g, "dtype", dtype) == dtype else g.astype(dtype)


@_rule_of(primitives.sigmoid)
def _sigmoid_rule(
    dy: Array, asked: Names, y: Array, z: Array, save_logits: bool
) -> dict[str, Array]:
    return {"z": sigmoid_backward(dy, None, z=z) if save_logits else sigmoid_backward(dy, y)}


@_rule_of(primitives.dense_sigmoid)
def _dense_sigmoid_rule(
    dy: Array, asked: Names, y: Array, x: Array, w: Array, b: Array, known: Array, precision: str
) -> dict[str, Array]:
    z = None if known is None else primitives.logits(x, w, b, known, precision)
    grads = dense_sigmoid_backward(
        dy, y if z is None else None, x, w, z=z, wrt=asked, precision=precision
    )
    return {name: getattr(grads, f"d{name}") for name in asked}


@_rule_of(primitives.logits)
def _logits_rule(
    dz: Array, asked: Names, z: Array, x: Array, w: Array, b: Array, known: Array, precision: str
) -> dict[str, Array]:
    wrt = set(asked) - {"b"}
    found = {"b": bias_backward(dz)} if "b" in asked else {}
    if wrt:
        grads = matmul_backward(dz, x, w, wrt=wrt, precision=precision)
        found |= {name: getattr(grads, f"d{name}") for name in wrt}
    return found


@_rule_of(primitives.rows)
def _rows_rule(g: Array, asked: Names, rows: Array, b: Array, shape: Any) -> dict[str, Array]:
    return {"b": bias_backward(g)}


@_rule_of(primitives.bias_backward)
def _bias_backward_rule(g: Array, asked: Names, db: Array, dy: Array) -> dict[str, Array]:
    return {"dy": primitives.rows(g, anp.shape(dy))}


@_rule_of(primitives.tanh_half)
def _tanh_half_rule(g: Array, asked: Names, tanh: Array, z: Array) -> dict[str, Array]:
    return {"z": 2 * sigmoid_backward(g, None, z=z)}


@_rule_of(primitives.sigmoid_backward)
def _sigmoid_backward_rule(
    g: Array, asked: Names, dz: Any, dy: Array, y: Array, z: Array
) -> dict[str, Array]:
    found = {}
    if "dy" in asked or "z" in asked:
        found["dy"] = sigmoid_backward(g, y, z=z)
    if "y" in asked:
        found["y"] = g * dy * (1 - 2 * y)
    if "z" in asked:
        found["z"] = -dy * found["dy"] * primitives.tanh_half(z)
    return found


@_rule_of(primitives.sigmoid_bias_backward)
def _sigmoid_bias_backward_rule(
    g: Any, asked: Names, grads: Any, dy: Array, y: Array, z: Array
) -> dict[str, Array]:
    gz, gb = g
    return _sigmoid_backward_rule(gz + primitives.rows(gb, anp.shape(dy)), asked, None, dy, y, z)


@_rule_of(primitives.matmul_backward)
def _matmul_backward_rule(
    g: Any, asked: Names, grads: Any, dy: Array, x: Array, w: Array, wrt: Names, precision: str
) -> dict[str, Array]:
    given = dict(zip((name for name in ("x", "w") if name in wrt), g, strict=True))
    found = _of_products(dy, x, w, given, asked, precision)
    if "dy" in asked:
        found["dy"] = _of_dz(x, w, given, anp.shape(dy), precision)
    return found


@_rule_of(primitives.dense_sigmoid_backward)
def _dense_sigmoid_backward_rule(
    g: Any,
    asked: Names,
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
    if "x" in asked or "w" in asked:
        found = _of_products(sigmoid_backward(dy, y, z=z), x, w, given, asked, precision)
    if not {"dy", "y", "z"}.isdisjoint(asked):
        gz = _of_dz(x, w, given, anp.shape(dy), precision)
        found |= _sigmoid_backward_rule(gz, asked, None, dy, y, z)
    return found


def _of_products(
    dz: Array, x: Array, w: Array, g: dict[str, Array], asked: Names, precision: str
) -> dict[str, Array]:
    """Return the gradients of x and w from those of dx = dz wᵀ and dw = xᵀ dz.

    They are dz gwᵀ and gxᵀ dz: the same function, of gx and gw.
    """
    wrt = [name for name in ("x", "w") if name in asked]
    if not wrt:
        return {}
    grads = matmul_backward(dz, g.get("x", x), g.get("w", w), wrt=wrt, precision=precision)
    return {name: getattr(grads, f"d{name}") for name in wrt}


def _of_dz(
    x: Array, w: Array, g: dict[str, Array], shape: tuple[int, ...], precision: str
) -> Array:
    """Return the gradient of dz from those of dx, dw and db: gx w + x gw + gb, of what there is."""
    terms = []
    if "x" in g:
        terms.append(primitives.logits(g["x"], w, g.get("b"), None, precision))
    elif "b" in g:
        terms.append(primitives.rows(g["b"], shape))
    if "w" in g:
        terms.append(primitives.logits(x, g["w"], None, None, precision))
    return sum(terms[1:], terms[0])
