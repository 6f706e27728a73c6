"""The public functions and their checks."""

from collections.abc import Iterable
from typing import Any

from autograd.tracer import getval

from gpugrad.arrays.call import Array, Call
from gpugrad.autograd import primitives
from gpugrad.autograd.primitives import Names
from gpugrad.backward import DenseGrads, MatmulGrads, SigmoidBiasGrads
from gpugrad.errors import DTypeError


def sigmoid(z: Array, *, save_logits: bool = False) -> Array:
    """Logistic function y = σ(z) = 1/(1 + e⁻ᶻ), without overflow for any z.

    Parameters
    ----------
    z : array of any shape
        float64, float32, float16 or bfloat16.
    save_logits : bool
        Compute the gradient from `z` instead of y: dy · σ(z) · σ(−z), which is accurate also if y
        has rounded to 1.

    Returns
    -------
    array
        y, of the shape and dtype of `z`.

    Raises
    ------
    DTypeError
        `z` is no array or has an unsupported dtype.

    Notes
    -----
    dz = dy · y · (1 − y); see `gpugrad.sigmoid_backward`.

    Examples
    --------
    >>> import numpy as np, gpugrad.autograd
    >>> from autograd import elementwise_grad
    >>> elementwise_grad(gpugrad.autograd.sigmoid)(np.array([-1.0, 0.0, 1.0]))
    array([0.19661193, 0.25      , 0.19661193])
    >>> elementwise_grad(gpugrad.autograd.sigmoid)(np.array([40.0]), save_logits=True)
    array([4.24835426e-18])
    """
    return primitives.sigmoid(z, save_logits)


def dense_sigmoid(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    precision: str = "highest",
    save_logits: bool = False,
) -> Array:
    """Dense sigmoid layer y = σ(x w + b), differentiable in x, w and b.

    Parameters
    ----------
    x : array of shape (..., k)
    w : array of shape (k, m)
    b : array of shape (m,), optional
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products, also of the gradients; see
        `gpugrad.matmul_backward`.
    save_logits : bool
        Save z = x w + b in the inputs' dtype, and compute y and the gradients from it. They are
        accurate also if y has rounded to 1.

    Returns
    -------
    array of shape (..., m)
        y, of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is computed, as in `gpugrad.dense_sigmoid`. DTypeError also for arrays other
        than NumPy's if `save_logits`.

    Notes
    -----
    One call of `gpugrad.dense_sigmoid_backward` computes all gradients: with dz = dy · y · (1 − y),
    dx = dz wᵀ, dw = xᵀ dz and db = Σ dz.

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import grad
    >>> x, w, b = np.ones((4, 2)), np.zeros((2, 3)), np.zeros(3)
    >>> def loss(w, b):
    ...     return np.sum(gpugrad.autograd.dense_sigmoid(x, w, b) ** 2)
    >>> dw, db = grad(loss, (0, 1))(w, b)
    >>> db
    array([1., 1., 1.])
    """
    z = _checked_logits(x, w, b, precision) if save_logits else None
    return primitives.dense_sigmoid(x, w, b, z, precision)


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    wrt: Iterable[str] = ("x", "w"),
    precision: str = "highest",
) -> MatmulGrads:
    """Gradients of y = x w: dx = dy wᵀ and dw = xᵀ dy, differentiable in dy, x and w.

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
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is computed.

    Notes
    -----
    With gradients gx of dx and gw of dw, that of dy is gx w + x gw, that of x is dy gwᵀ, and that
    of w is gxᵀ dy.

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import grad
    >>> dy, x, w = np.array([[10.0]]), np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    >>> grad(lambda dy: np.sum(gpugrad.autograd.matmul_backward(dy, x, w).dx))(dy)
    array([[7.]])
    """
    names = _listed(wrt)
    x, w = _traced_if_read(x, w, names)
    return MatmulGrads(
        *_with_none("xw", primitives.matmul_backward(dy, x, w, names, precision), names)
    )


def bias_backward(dy: Array) -> Array:
    """Gradient of y = z + b with respect to b: db = Σ dy over all but the last dimension.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.

    Returns
    -------
    array of shape (m,)
        db, of the dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        Before anything is computed.

    Notes
    -----
    A gradient g of db is that of every row of dy.

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import grad
    >>> dy = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> grad(lambda dy: np.sum(gpugrad.autograd.bias_backward(dy) ** 2))(dy)
    array([[ 8., 12.],
           [ 8., 12.]])
    """
    return primitives.bias_backward(dy)


def sigmoid_backward(dy: Array, y: Array | None, *, z: Array | None = None) -> Array:
    """Gradient of y = σ(z): dz = dy · y · (1 − y), differentiable in dy and y, or dy and z.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to y.
    y : array of the same shape
        The sigmoid's result. If `z` is given, it is not read, has no gradient, and may be None.
    z : array of the same shape, optional
        The logits. If given, dz = dy · σ(z) · σ(−z), which is accurate also if y has rounded to 1.

    Returns
    -------
    array
        dz, of the shape and dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        Before anything is computed.

    Notes
    -----
    With a gradient g of dz, that of dy is g · y · (1 − y), or g · σ(z) · σ(−z) from the logits;
    that of y is g · dy · (1 − 2 y), and that of z is −g · dz · tanh(z/2).

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import elementwise_grad
    >>> dy, y = np.array([1.0, 2.0]), np.array([0.5, 0.75])
    >>> elementwise_grad(gpugrad.autograd.sigmoid_backward, 1)(dy, y)
    array([ 0., -1.])
    """
    return primitives.sigmoid_backward(dy, _unless_logits(y, z), z)


def sigmoid_bias_backward(
    dy: Array, y: Array | None, *, z: Array | None = None
) -> SigmoidBiasGrads:
    """Gradients of y = σ(v + b) in one pass: dz = dy · y · (1 − y) and db = Σ dz.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The sigmoid's result. May be None if `z` is given; see `sigmoid_backward`.
    z : array of shape (..., m), optional
        The logits z = v + b.

    Returns
    -------
    SigmoidBiasGrads
        dz of shape (..., m), which is also the gradient with respect to v, and db of shape (m,).

    Raises
    ------
    ShapeError, DTypeError
        Before anything is computed.

    Notes
    -----
    With gradients gz of dz and gb of db, g = gz + gb, with gb in every row, is that of dz as in
    `sigmoid_backward`, where the rest follows.

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import grad
    >>> dy, y = np.ones((2, 1)), np.array([[0.5], [0.75]])
    >>> grad(lambda dy: np.sum(gpugrad.autograd.sigmoid_bias_backward(dy, y).db))(dy)
    array([[0.25  ],
           [0.1875]])
    """
    return SigmoidBiasGrads(*primitives.sigmoid_bias_backward(dy, _unless_logits(y, z), z))


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
    """Gradients of a dense sigmoid layer y = σ(x w + b), differentiable in dy, y or z, x and w.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The layer's result, here independent of x and w. May be None if `z` is given; see
        `sigmoid_backward`.
    x : array of shape (..., k)
        The layer's input.
    w : array of shape (k, m)
    z : array of shape (..., m), optional
        The logits x w + b, here independent of x and w.
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
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is computed.

    Notes
    -----
    With dz = dy · y · (1 − y): dx = dz wᵀ, dw = xᵀ dz, db = Σ dz. With gradients gx, gw and gb of
    these, that of x is dz gwᵀ, that of w is gxᵀ dz, and g = gx w + x gw + gb is that of dz, from
    which those of dy, y and z follow as in `sigmoid_backward`.

    Examples
    --------
    >>> import autograd.numpy as np, gpugrad.autograd
    >>> from autograd import grad
    >>> dy, y, x, w = np.ones((1, 1)), np.full((1, 1), 0.5), np.ones((1, 2)), np.ones((2, 1))
    >>> grad(lambda w: np.sum(gpugrad.autograd.dense_sigmoid_backward(dy, y, x, w).dx))(w)
    array([[0.25],
           [0.25]])
    """
    names = _listed(wrt)
    x, w = _traced_if_read(x, w, names)
    grads = primitives.dense_sigmoid_backward(dy, _unless_logits(y, z), x, w, z, names, precision)
    return DenseGrads(*_with_none("xwb", grads, names))


# ---- arguments and results


def _listed(wrt: Any) -> Any:
    """Read an iterable once; other values are reported by the checks."""
    return tuple(wrt) if isinstance(wrt, Iterable) else wrt


def _with_none(order: str, grads: Any, wrt: Names) -> list[Any]:
    """Return gradients in order, with None for those not in `wrt`."""
    given = iter(grads)
    return [next(given) if name in wrt else None for name in order]


def _unless_logits(y: Array | None, z: Array | None) -> Array | None:
    """Keep y out of the trace if it is not read."""
    return y if z is None else getval(y)


def _traced_if_read(x: Array, w: Array, wrt: Any) -> tuple[Array, Array]:
    """Keep x and w out of the trace if no result depends on them: dx on w, dw on x."""
    names = wrt if isinstance(wrt, tuple) else ()
    return x if "w" in names else getval(x), w if "x" in names else getval(w)


def _checked_logits(x: Array, w: Array, b: Array | None, precision: str) -> Array:
    """Check the call of `dense_sigmoid`; return the values of its logits."""
    call = Call("dense_sigmoid", x=getval(x), w=getval(w), b=getval(b))
    if call.kind != "NumPy":
        call.fail(DTypeError, f"x is a {call.kind} array, expected a NumPy array, as in autograd")
    with call:
        call.expect_operands()
        call.expect_precision(precision)
        arrays = call.arrays
        return primitives.logits(arrays["x"], arrays["w"], arrays.get("b"), None, precision)
