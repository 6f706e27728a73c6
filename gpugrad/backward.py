"""The backward passes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from gpugrad import calls
from gpugrad.arrays.call import Array


class MatmulGrads(NamedTuple):
    """Gradients of a matrix product; None for those not in `wrt`."""

    dx: Array
    dw: Array


class SigmoidBiasGrads(NamedTuple):
    """Gradients of y = σ(v + b)."""

    dz: Array
    db: Array


class DenseGrads(NamedTuple):
    """Gradients of a dense sigmoid layer; None for those not in `wrt`."""

    dx: Array
    dw: Array
    db: Array


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    wrt: Iterable[str] = ("x", "w"),
    out: Any = None,
    accumulate: bool = False,
    precision: str = "highest",
    device: str = "auto",
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
    out : tuple (dx, dw), optional
        Buffers for the results, or None for a new one. dw may be float32 if the inputs have
        16 bits. No buffer may share memory with an input.
    accumulate : bool
        Add to the buffers of `out` instead of overwriting them.
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products. "highest": every component at least as accurate as
        by IEEE float32 FMA, for any scaling. "high": about 2⁻²¹ in norm per row and column of the
        result. "medium": about 2⁻¹⁰ in norm. "ieee": IEEE float32 FMA. All but "ieee" use tensor
        cores if these are faster. On the CPU all are IEEE float32 arithmetic.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed. Arrays on a GPU are always computed there.

    Returns
    -------
    MatmulGrads
        dx of shape (..., k) and dw of shape (k, m), of the inputs' dtype and kind. dw has w's
        memory order, C or Fortran.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    Inputs are float64, float32, float16 or bfloat16, all of one dtype, of any strides. 16-bit
    inputs accumulate in float32 and are rounded once. With y_ij = Σ_q x_iq w_qj, the chain rule
    over ∂y_ij/∂w_kl = x_ik δ_jl and ∂y_ij/∂x_kl = δ_ik w_lj gives both formulas; they are
    derived in docs/derivation.md.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    >>> dx, dw = gpugrad.matmul_backward(np.array([[10.0]]), x, w)
    >>> dx
    array([[30., 40.]])
    >>> dw
    array([[10.],
           [20.]])
    """
    return MatmulGrads(
        *calls.call("matmul_backward", (dy, x, w), out, accumulate, device, precision, wrt)
    )


def bias_backward(
    dy: Array, *, out: Array | None = None, accumulate: bool = False, device: str = "auto"
) -> Array:
    """Gradient of y = z + b with respect to b: db = Σ dy over all but the last dimension.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    out : array of shape (m,), optional
        Buffer for the result; may be float32 if `dy` has 16 bits. It must not share memory with
        `dy`.
    accumulate : bool
        Add to `out` instead of overwriting it.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed.

    Returns
    -------
    array of shape (m,)
        db, of the dtype and kind of `dy`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    ∂y_ij/∂b_k = δ_jk, so that the chain rule gives the sum of column k; derived in
    docs/derivation.md. The gradient with respect to z is `dy` itself.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> gpugrad.bias_backward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    (db,) = calls.call("bias_backward", (dy,), out, accumulate, device)
    return db


def sigmoid_backward(
    dy: Array,
    y: Array | None,
    *,
    z: Array | None = None,
    out: Array | None = None,
    device: str = "auto",
) -> Array:
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
    out : array of the same shape, optional
        Buffer for the result. May be `dy`, `y` or `z` itself.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed.

    Returns
    -------
    array
        dz, of the shape, dtype and kind of `dy`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    σ(t) = 1/(1 + e⁻ᵗ) has the derivative σ'(t) = σ(t)(1 − σ(t)) = σ(t) σ(−t); derived in
    docs/derivation.md.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> gpugrad.sigmoid_backward(np.array([1.0, 2.0]), np.array([0.5, 0.75]))
    array([0.25 , 0.375])
    >>> one = np.ones(1, np.float32)
    >>> gpugrad.sigmoid_backward(one, one, z=20 * one)
    array([2.0611537e-09], dtype=float32)
    """
    (dz,) = calls.call("sigmoid_backward", (dy, y, z), out, False, device)
    return dz


def sigmoid_bias_backward(
    dy: Array,
    y: Array | None,
    *,
    z: Array | None = None,
    out: Any = None,
    accumulate: bool = False,
    device: str = "auto",
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
    out : tuple (dz, db), optional
        Buffers for the results, or None for a new one. dz may be `dy`, `y` or `z` itself
        unless `accumulate`; db may be float32 if the inputs have 16 bits.
    accumulate : bool
        Add to the buffers of `out` instead of overwriting them.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed.

    Returns
    -------
    SigmoidBiasGrads
        dz of shape (..., m), which is also the gradient with respect to v, and db of shape (m,).

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    db sums dz before it is rounded to a 16-bit dtype. Both rules are derived in
    docs/derivation.md.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> dy, y = np.ones((2, 1)), np.array([[0.5], [0.75]])
    >>> gpugrad.sigmoid_bias_backward(dy, y).db
    array([0.4375])
    """
    return SigmoidBiasGrads(
        *calls.call("sigmoid_bias_backward", (dy, y, z), out, accumulate, device)
    )


def dense_sigmoid_backward(
    dy: Array,
    y: Array | None,
    x: Array,
    w: Array,
    *,
    z: Array | None = None,
    wrt: Iterable[str] = ("x", "w", "b"),
    out: Any = None,
    accumulate: bool = False,
    precision: str = "highest",
    device: str = "auto",
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
    out : tuple (dx, dw, db), optional
        Buffers for the results, or None for a new one. dw and db may be float32 if the
        inputs have 16 bits. No buffer may share memory with an input.
    accumulate : bool
        Add to the buffers of `out` instead of overwriting them.
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products; see `matmul_backward`.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed. Arrays on a GPU are always computed there.

    Returns
    -------
    DenseGrads
        dx of shape (..., k), dw of shape (k, m) and db of shape (m,), of the inputs' dtype. dw has
        w's memory order, C or Fortran.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    With dz = dy · y · (1 − y): dx = dz wᵀ, dw = xᵀ dz, db = Σ dz. The composition is derived in
    docs/derivation.md. For 16-bit inputs dz stays in float32, except that products on tensor cores
    round it to the inputs' dtype; with ``precision="ieee"`` it is never rounded.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> x, w, b = np.ones((4, 2)), np.zeros((2, 3)), np.zeros(3)
    >>> y = gpugrad.dense_sigmoid(x, w, b)
    >>> grads = gpugrad.dense_sigmoid_backward(np.ones_like(y), y, x, w)
    >>> grads.db
    array([1., 1., 1.])
    >>> grads.dw.shape, grads.dx.shape
    ((2, 3), (4, 2))
    """
    operands = (dy, y, z, x, w)
    return DenseGrads(
        *calls.call("dense_sigmoid_backward", operands, out, accumulate, device, precision, wrt)
    )
