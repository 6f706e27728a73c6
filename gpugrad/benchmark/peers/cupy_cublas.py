"""CuPy: one kernel for what is element-wise, cuBLAS for products, its own sum over rows.

Products of float32 are IEEE ones unless CUPY_TF32 is set.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from gpugrad.benchmark.peers import Way
from gpugrad.operations import OPERATIONS


def facts() -> dict[str, Any]:
    """Return the version."""
    import cupy

    return {"version": cupy.__version__}


def ways(op: str, operands: Mapping[str, Any], device: str) -> list[Way]:
    """Return the composition, on a GPU alone."""
    if device != "gpu":
        return []
    import cupy

    return [Way("CuPy", call(op, operands), cupy.asnumpy, "gpu")]


def call(op: str, operands: Mapping[str, Any]) -> Callable[[], Any]:
    """Bind the composition to operands, CuPy arrays by name; b may be left out.

    Raises
    ------
    ImportError
        It multiplies matrices, and there is no cuBLAS.
    """
    if OPERATIONS[op].products:
        expect_cublas()
    return functools.partial(_COMPOSED[op], *(operands.get(one) for one in OPERATIONS[op].operands))


def product(left: Any, right: Any) -> Any:
    """Compute left rightᵀ."""
    expect_cublas()
    return left @ right.T


def expect_cublas() -> None:
    """Raise what `no_cublas` says."""
    reason = no_cublas()
    if reason is not None:
        raise ImportError(reason)


@functools.cache
def no_cublas() -> str | None:
    """Return why CuPy cannot multiply matrices, or None if it can."""
    try:
        importlib.import_module("cupy.cublas")
    except ImportError:
        return "CuPy finds no cuBLAS; pip install 'cupy-cuda13x[ctk]' (or cuda12x) installs it"
    return None


def _kernel(dtype: Any, inputs: str, output: str, expression: str) -> Any:
    return compiled(inputs, output, expression, "double" if dtype.itemsize == 8 else "float")


@functools.cache
def compiled(inputs: str, output: str, expression: str, wide: str) -> Any:
    """Make an element-wise kernel that computes in `wide`, whatever is stored."""
    import cupy

    names = inputs.split()
    copies = " ".join(f"const {wide} {name}_ = {name};" for name in names)
    return cupy.ElementwiseKernel(
        ", ".join(f"T {name}" for name in names),
        f"T {output}",
        f"{copies} {output} = T({expression});",
        f"composed_{output}_{wide}",
    )


def _dz(dy: Any, y: Any) -> Any:
    return _kernel(dy.dtype, "dy y", "dz", "dy_ * y_ * (1 - y_)")(dy, y)


def _sigma(z: Any) -> Any:
    return _kernel(z.dtype, "z", "y", "1 / (1 + exp(-z_))")(z)


def _sigma_of_sum(z: Any, b: Any) -> Any:
    return _kernel(z.dtype, "z b", "y", "1 / (1 + exp(-(z_ + b_)))")(z, b)


def _matmul_backward(dy: Any, x: Any, w: Any) -> Any:
    return dy @ w.T, x.T @ dy


def _bias_backward(dy: Any) -> Any:
    return dy.sum(axis=0)


def _sigmoid_bias_backward(dy: Any, y: Any) -> Any:
    dz = _dz(dy, y)
    return dz, dz.sum(axis=0)


def _dense_sigmoid_backward(dy: Any, y: Any, x: Any, w: Any) -> Any:
    dz = _dz(dy, y)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def _dense_sigmoid(x: Any, w: Any, b: Any) -> Any:
    return _sigma_of_sum(x @ w, b)


_COMPOSED: dict[str, Any] = {
    "matmul_backward": _matmul_backward,
    "bias_backward": _bias_backward,
    "sigmoid_backward": _dz,
    "sigmoid_bias_backward": _sigmoid_bias_backward,
    "dense_sigmoid_backward": _dense_sigmoid_backward,
    "sigmoid": _sigma,
    "dense_sigmoid": _dense_sigmoid,
}
