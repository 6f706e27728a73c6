"""The forward passes: the sigmoid and the dense sigmoid layer."""

from gpugrad import calls
from gpugrad.arrays.call import Array


def sigmoid(z: Array, *, out: Array | None = None, device: str = "auto") -> Array:
    """Logistic function y = σ(z) = 1/(1 + e⁻ᶻ), without overflow for any z.

    Parameters
    ----------
    z : array of any shape
        float64, float32, float16 or bfloat16; 16-bit values are computed in float32.
    out : array of the same shape, optional
        Buffer for the result. May be `z` itself.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed. Arrays on a GPU are always computed there.

    Returns
    -------
    array
        y, of the shape, dtype and kind of `z`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    With e = exp(−|z|), y = 1/(1 + e) for z ≥ 0 and e/(1 + e) for z < 0: the exponential never
    exceeds 1, and small results keep their relative accuracy down to subnormal numbers.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> gpugrad.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    (y,) = calls.call("sigmoid", (z,), out, False, device)
    return y


def dense_sigmoid(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    out: Array | None = None,
    precision: str = "highest",
    device: str = "auto",
) -> Array:
    """Dense sigmoid layer y = σ(x w + b).

    Parameters
    ----------
    x : array of shape (..., k)
    w : array of shape (k, m)
    b : array of shape (m,), optional
    out : array of shape (..., m), optional
        Buffer for the result; must not share memory with an input.
    precision : {"highest", "high", "medium", "ieee"}
        Minimum accuracy of float32 products; see `matmul_backward`.
    device : {"auto", "cpu", "gpu"}
        Where NumPy arrays are computed. Arrays on a GPU are always computed there.

    Returns
    -------
    array of shape (..., m)
        y, of the inputs' dtype and kind.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Before anything is written.

    Notes
    -----
    16-bit inputs accumulate in float32. The result is rounded once, after bias and sigmoid.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> gpugrad.dense_sigmoid(np.ones((1, 2)), np.zeros((2, 3)))
    array([[0.5, 0.5, 0.5]])
    """
    (y,) = calls.call("dense_sigmoid", (x, w, b), out, False, device, precision)
    return y
