"""The layer and its backward passes as functions that HIPS autograd differentiates, to any order.

autograd traces NumPy arrays and nothing else: of CuPy arrays, tensors and whatever else it says
"Can't differentiate w.r.t. type", in a TypeError. Derivatives are taken backwards (``grad``,
``jacobian``, ``make_vjp``); there are no rules for its forward mode. Named tuples of gradients are
plain tuples to autograd, so that a function that is differentiated and returns one has to make it
a tuple of autograd's: ``autograd.tuple(grads)``.
"""

try:
    import autograd  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "autograd":
        raise
    message = "gpugrad.autograd needs autograd (pip install 'gpugrad[autograd]')"
    raise ModuleNotFoundError(message, name="autograd") from None

from gpugrad.autograd import rules as _rules  # noqa: F401  # gives the primitives their gradients
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
