"""Backward passes of dense sigmoid layers as hand-written CUDA kernels, with a NumPy path."""

from gpugrad.backward import (
    DenseGrads,
    MatmulGrads,
    SigmoidBiasGrads,
    bias_backward,
    dense_sigmoid_backward,
    matmul_backward,
    sigmoid_backward,
    sigmoid_bias_backward,
)
from gpugrad.dispatch import plan
from gpugrad.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GpugradError,
    GradcheckError,
    KernelCompileError,
    ShapeError,
)
from gpugrad.forward import dense_sigmoid, sigmoid
from gpugrad.gradcheck import Gradcheck, gradcheck
from gpugrad.planning.problem import Plan

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DenseGrads",
    "DeviceError",
    "GpugradError",
    "Gradcheck",
    "GradcheckError",
    "KernelCompileError",
    "MatmulGrads",
    "Plan",
    "ShapeError",
    "SigmoidBiasGrads",
    "__version__",
    "bias_backward",
    "dense_sigmoid",
    "dense_sigmoid_backward",
    "gradcheck",
    "matmul_backward",
    "plan",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_bias_backward",
]
