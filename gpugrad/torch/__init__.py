"""gpugrad for PyTorch: differentiable functions, and the module SigmoidLinear.

Tensors on the CPU are computed as NumPy arrays that share their memory, tensors on CUDA devices by
the kernels, on PyTorch's current stream. The operators are ``torch.ops.gpugrad``, known to
autograd in both modes, torch.func and torch.compile. Exported layers are PyTorch's own operators.
"""

try:
    import torch as _torch  # noqa: F401  # the adapter needs it, and says so
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "gpugrad.torch needs PyTorch (pip install 'gpugrad[torch]')", name="torch"
    ) from None

from gpugrad.torch.functions import (
    bias_backward,
    dense_sigmoid,
    dense_sigmoid_backward,
    matmul_backward,
    sigmoid,
    sigmoid_backward,
    sigmoid_bias_backward,
    sigmoid_linear,
)
from gpugrad.torch.modules import SigmoidLinear

__all__ = [
    "SigmoidLinear",
    "bias_backward",
    "dense_sigmoid",
    "dense_sigmoid_backward",
    "matmul_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_bias_backward",
    "sigmoid_linear",
]
