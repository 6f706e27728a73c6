"""The primitives that autograd traces: functions of positional arguments, without checks.

They return plain tuples of the wanted gradients, because autograd does not support None.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.extend import primitive

from gpugrad import backward, forward
from gpugrad.arrays.call import Array

Names = tuple[str, ...]


def _primitive(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function as a primitive of autograd; rules.py defines its gradients."""
    made: Callable[..., Any] = primitive(function)
    return made


@_primitive
def sigmoid(z: Array, save_logits: bool) -> Array:
    """Compute y; only the rule reads `save_logits`."""
    return forward.sigmoid(z)


@_primitive
def dense_sigmoid(x: Array, w: Array, b: Array, known: Array, precision: str) -> Array:
    """Compute the layer, from its logits if these are known."""
    if known is not None:
        return forward.sigmoid(known)
    return forward.dense_sigmoid(x, w, b, precision=precision)


@_primitive
def logits(x: Array, w: Array, b: Array, known: Array, precision: str) -> Array:
    """Return z = x w + b; the known values, if only the rule is needed.

    The product x w is dx = dy wᵀ of dy := x and w := wᵀ. It is rounded once, to the inputs' dtype.
    """
    if known is not None:
        return known
    z = np.empty((*x.shape[:-1], w.shape[1]), x.dtype)
    z[...] = 0 if b is None else b
    unread = np.broadcast_to(np.zeros((), x.dtype), z.shape)
    backward.matmul_backward(
        x, unread, w.T, wrt=("x",), out=(z, None), accumulate=True, precision=precision
    )
    return z


@_primitive
def rows(b: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast a row to a shape."""
    return np.broadcast_to(b, shape).copy()  # callers may write to it


@_primitive
def bias_backward(dy: Array) -> Array:
    """Compute db."""
    return backward.bias_backward(dy)


@_primitive
def tanh_half(z: Array) -> Array:
    """Compute tanh(z/2), with derivative 2 σ(z) σ(−z); the cosh in autograd's rule overflows."""
    return np.tanh(z / 2)


@_primitive
def sigmoid_backward(dy: Array, y: Array, z: Array) -> Array:
    """Compute dz."""
    return backward.sigmoid_backward(dy, y, z=z)


@_primitive
def sigmoid_bias_backward(dy: Array, y: Array, z: Array) -> tuple[Array, ...]:
    """Compute dz and db."""
    return tuple(backward.sigmoid_bias_backward(dy, y, z=z))


@_primitive
def matmul_backward(dy: Array, x: Array, w: Array, wrt: Names, precision: str) -> tuple[Array, ...]:
    """Compute the gradients in `wrt`, of dx and dw."""
    grads = backward.matmul_backward(dy, x, w, wrt=wrt, precision=precision)
    return tuple(one for one in grads if one is not None)


@_primitive
def dense_sigmoid_backward(
    dy: Array, y: Array, x: Array, w: Array, z: Array, wrt: Names, precision: str
) -> tuple[Array, ...]:
    """Compute the gradients in `wrt`, of dx, dw and db."""
    grads = backward.dense_sigmoid_backward(dy, y, x, w, z=z, wrt=wrt, precision=precision)
    return tuple(one for one in grads if one is not None)
