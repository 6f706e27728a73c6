"""The public functions, their checks, and their calls of the primitive."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpugrad.arrays.call import Call
from gpugrad.backward import DenseGrads, MatmulGrads, SigmoidBiasGrads
from gpugrad.errors import DTypeError
from gpugrad.jax.expressions import logits
from gpugrad.jax.primitive import bind
from gpugrad.jax.traced import Traced
from gpugrad.operations import OPERATIONS

Array = Any  # a JAX array, traced or not, or anything it converts: a NumPy array, a number
Named = Mapping[str, Any]


def sigmoid(z: Array, *, save_logits: bool = False) -> Array:
    """Logistic function y = σ(z) = 1/(1 + e⁻ᶻ), without overflow for any z.

    Parameters
    ----------
    z : array of any shape
        float64, float32, float16 or bfloat16; 16-bit values are computed in float32.
    save_logits : bool
        Compute the gradient from z rather than from y; see `sigmoid_backward`.

    Returns
    -------
    jax.Array
        y, of the shape and dtype of `z`.

    Raises
    ------
    DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    The gradient is dz = dy · y · (1 − y), or dy · σ(z) · σ(−z) from the logits.

    Examples
    --------
    >>> import jax, gpugrad.jax
    >>> gpugrad.jax.sigmoid(0.0)
    Array(0.5, dtype=float32)
    >>> jax.grad(gpugrad.jax.sigmoid)(20.0)
    Array(0., dtype=float32)
    >>> jax.grad(lambda z: gpugrad.jax.sigmoid(z, save_logits=True))(20.0)
    Array(2.0611537e-09, dtype=float32)
    """
    arrays, _ = _checked("sigmoid", {"z": z})
    return _apply("sigmoid", arrays, save_logits=save_logits)["y"]


def dense_sigmoid(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    precision: str = "highest",
    save_logits: bool = False,
) -> Array:
    """Dense sigmoid layer y = σ(x w + b).

    Parameters
    ----------
    x : array of shape (..., k)
    w : array of shape (k, m)
    b : array of shape (m,), optional
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products; see `gpugrad.matmul_backward`.
    save_logits : bool
        Save z = x w + b for the gradient, which is then accurate also if y has rounded to 1; see
        `sigmoid_backward`. JAX computes z, rounded to the inputs' dtype.

    Returns
    -------
    jax.Array of shape (..., m)
        y, of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    The gradients are those of `dense_sigmoid_backward`, computed in one call.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, gpugrad.jax
    >>> x, w, b = jnp.ones((4, 2)), jnp.zeros((2, 3)), jnp.zeros(3)
    >>> def loss(w, b):
    ...     return gpugrad.jax.dense_sigmoid(x, w, b).sum()
    >>> dw, db = jax.jit(jax.grad(loss, argnums=(0, 1)))(w, b)
    >>> db
    Array([1., 1., 1.], dtype=float32)
    """
    operands = {"x": x, "w": w, "b": b}
    arrays, _ = _checked("dense_sigmoid", operands, precision=precision)
    if save_logits:
        arrays = {"z": logits(**arrays).astype(arrays["x"].dtype), **arrays}
    return _apply("dense_sigmoid", arrays, precision=precision, save_logits=save_logits)["y"]


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    wrt: Iterable[str] = ("x", "w"),
    precision: str = "highest",
) -> MatmulGrads:
    """Gradients of y = x w: dx = dy wᵀ and dw = xᵀ dy.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    x : array of shape (..., k)
    w : array of shape (k, m)
    wrt : iterable of {"x", "w"}
        The inputs to differentiate with respect to. Other gradients are None and not computed.
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products; see `gpugrad.matmul_backward`.

    Returns
    -------
    MatmulGrads
        dx of shape (..., k) and dw of shape (k, m), of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    With the gradients gx and gw of dx and dw, those of dy, x and w are gx w + x gw, dy gwᵀ and
    gxᵀ dy.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]])
    >>> gpugrad.jax.matmul_backward(jnp.array([[10.0]]), x, w).dx
    Array([[30., 40.]], dtype=float32)
    """
    operands = {"dy": dy, "x": x, "w": w}
    arrays, names = _checked("matmul_backward", operands, wrt, precision)
    return MatmulGrads(**_apply("matmul_backward", arrays, names, precision))


def bias_backward(dy: Array) -> Array:
    """Gradient of y = z + b with respect to b: db = Σ dy over all but the last dimension.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.

    Returns
    -------
    jax.Array of shape (m,)
        db, of the dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    With the gradient gb of db, that of dy is gb in every row.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.bias_backward(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([4., 6.], dtype=float32)
    """
    arrays, _ = _checked("bias_backward", {"dy": dy})
    return _apply("bias_backward", arrays)["db"]


def sigmoid_backward(dy: Array, y: Array | None, *, z: Array | None = None) -> Array:
    """Gradient of y = σ(z): dz = dy · y · (1 − y), element by element.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to y.
    y : array of the same shape
        The sigmoid's result. It is not read if `z` is given, and may then be None.
    z : array of the same shape, optional
        The logits. If given, dz = dy · σ(z) · σ(−z), which is accurate also if y has rounded to 1
        (float64 from z = 36.8, float32 from 16.7, float16 from 8.4, bfloat16 from 6.3).

    Returns
    -------
    jax.Array
        dz, of the shape and dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    With the gradient g of dz, that of dy is g · y · (1 − y), and that of y is g · dy · (1 − 2 y);
    with the logits, g · σ(z) · σ(−z), and −g · dz · tanh(z / 2) of z.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.sigmoid_backward(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.75]))
    Array([0.25 , 0.375], dtype=float32)
    """
    arrays, _ = _checked("sigmoid_backward", {"dy": dy, "y": y, "z": z})
    return _apply("sigmoid_backward", arrays)["dz"]


def sigmoid_bias_backward(
    dy: Array, y: Array | None, *, z: Array | None = None
) -> SigmoidBiasGrads:
    """Gradients of y = σ(v + b) in one pass: dz = dy · y · (1 − y) and db = Σ dz.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The sigmoid's result. May be None if `z` is given.
    z : array of shape (..., m), optional
        The logits z = v + b; see `sigmoid_backward`.

    Returns
    -------
    SigmoidBiasGrads
        dz of shape (..., m), which is also the gradient with respect to v, and db of shape (m,).

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    With the gradients gz and gb of dz and db, those of dy and of y or z are as for
    `sigmoid_backward`, with g = gz + gb.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.sigmoid_bias_backward(jnp.ones((2, 1)), jnp.array([[0.5], [0.75]])).db
    Array([0.4375], dtype=float32)
    """
    arrays, _ = _checked("sigmoid_bias_backward", {"dy": dy, "y": y, "z": z})
    return SigmoidBiasGrads(**_apply("sigmoid_bias_backward", arrays))


def dense_sigmoid_backward(
    dy: Array,
    y: Array | None,
    x: Array,
    w: Array,
    *,
    z: Array | None = None,
    wrt: Iterable[str] = ("x", "w", "b"),
    precision: str = "highest",
) -> DenseGrads:
    """Gradients of a dense sigmoid layer y = σ(x w + b) in one call.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The layer's result. May be None if `z` is given.
    x : array of shape (..., k)
        The layer's input.
    w : array of shape (k, m)
    z : array of shape (..., m), optional
        The logits x w + b; see `sigmoid_backward`.
    wrt : iterable of {"x", "w", "b"}
        The inputs to differentiate with respect to. Other gradients are None and not computed.
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products; see `gpugrad.matmul_backward`.

    Returns
    -------
    DenseGrads
        dx of shape (..., k), dw of shape (k, m) and db of shape (m,), of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.

    Notes
    -----
    With dz = dy · y · (1 − y): dx = dz wᵀ, dw = xᵀ dz, db = Σ dz. With the gradients gx, gw and gb
    of these, those of dy and of y or z are as for `sigmoid_backward`, with g = gx w + x gw + gb,
    and those of x and w are dz gwᵀ and gxᵀ dz. y (or z) and x are independent here.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> x, w = jnp.ones((4, 2)), jnp.zeros((2, 3))
    >>> y = gpugrad.jax.dense_sigmoid(x, w)
    >>> gpugrad.jax.dense_sigmoid_backward(jnp.ones_like(y), y, x, w, wrt=("b",)).db
    Array([1., 1., 1.], dtype=float32)
    """
    operands = {"dy": dy, "y": y, "x": x, "w": w, "z": z}
    arrays, names = _checked("dense_sigmoid_backward", operands, wrt, precision)
    return DenseGrads(**_apply("dense_sigmoid_backward", arrays, names, precision))


# ---- from a call to the primitive


def _checked(
    op: str, operands: Named, wrt: Iterable[str] = (), precision: str = "highest"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check a call like gpugrad's function; return its arrays as JAX's and the names in `wrt`."""
    arrays = {name: _array(op, name, value) for name, value in operands.items()}
    like = {name: None if one is None else _stand_in(one) for name, one in arrays.items()}
    with Call(op, **like) as call:
        call.expect_operands()
        call.expect_precision(precision)
        names = call.expect_wrt(wrt, OPERATIONS[op].wrt)
    if arrays.get("z") is not None:
        arrays.pop("y", None)  # not read
    return {name: one for name, one in arrays.items() if one is not None}, names


def _array(op: str, name: str, value: Any) -> Any:
    if value is None or isinstance(value, jax.Array):
        return value
    if isinstance(value, (jax.typing.ArrayLike, np.generic)):
        return jnp.asarray(value)
    raise DTypeError(
        f"{op}: {name} is a {type(value).__name__}, expected a JAX array, a NumPy array or a number"
    )


def _stand_in(array: Any) -> Any:
    """Return a NumPy array with the shape and dtype of a JAX array, traced or not."""
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):  # random keys have no NumPy dtype
        return array
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _apply(
    op: str,
    arrays: Named,
    wrt: tuple[str, ...] = (),
    precision: str = "highest",
    *,
    save_logits: bool = False,
) -> dict[str, Any]:
    """Return the results of a checked call by name; None for those not wanted."""
    operation = OPERATIONS[op]
    wanted = operation.wanted(wrt)
    results: dict[str, Any] = dict.fromkeys(operation.results)
    if wanted:
        traced = Traced(op, tuple(arrays), wanted, precision, save_logits)
        made = bind(traced, *arrays.values())
        results |= dict(zip(wanted, made, strict=True))
    return results
