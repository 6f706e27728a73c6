"""The layer and its backward passes as functions that HIPS autograd differentiates, to any order.

autograd traces NumPy arrays only, and raises TypeError for other arrays. Reverse mode (``grad``,
``jacobian``, ``make_vjp``) is supported, forward mode is not. Named tuples of gradients are plain
tuples to autograd: a differentiated function that returns one must return
``autograd.tuple(grads)``.
"""

try:
    import autograd  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "autograd":
        raise
    message = "gpugrad.autograd needs autograd (pip install 'gpugrad[autograd]')"
    raise ModuleNotFoundError(message, name="autograd") from None

from gpugrad.autograd import rules as _rules  # noqa: F401  # registers the gradients
from gpugrad.autograd.functions import (
    bias_backward,
    dense_sigmoid,
    dense_sigmoid_backward,
    matmul_backward,
    sigmoid,
    sigmoid_backward,
    sigmoid_bias_backward,
)

__all__ = [
    "bias_backward",
    "dense_sigmoid",
    "dense_sigmoid_backward",
    "matmul_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_bias_backward",
]
