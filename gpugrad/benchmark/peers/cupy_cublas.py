"""CuPy: one kernel for what is element-wise, cuBLAS for products, its own sum over rows.

Products of float32 are IEEE ones unless CUPY_TF32 is set.
"""

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpugrad.benchmark.peers import Implementation
from gpugrad.benchmark.peers.composition import Calls, bound, composed
from gpugrad.operations import OPERATIONS


def facts() -> dict[str, Any]:
    """Return the version."""
    import cupy

    return {"version": cupy.__version__}


def implementations(op: str, operands: Mapping[str, Any], device: str) -> list[Implementation]:
    """Return the composition, on a GPU alone."""
    if device != "gpu":
        return []
    import cupy

    return [Implementation("CuPy", calls(op, [operands])[0], cupy.asnumpy, "gpu")]


def calls(op: str, sets: Sequence[Mapping[str, Any]]) -> Calls:
    """Bind the composition to sets of operands, CuPy arrays by name; b may be left out.

    Raises
    ------
    ImportError
        It multiplies matrices, and there is no cuBLAS.
    """
    if OPERATIONS[op].products:
        expect_cublas()
    return bound(_COMPOSED[op], op, sets)


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


def _kernel(inputs: str, output: str, expression: str, *arrays: Any) -> Any:
    wide = "double" if arrays[0].dtype.itemsize == 8 else "float"
    return _compiled(inputs, output, expression, wide)(*arrays)


@functools.cache
def _compiled(inputs: str, output: str, expression: str, wide: str) -> Any:
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


def _sigmoid(z: Any) -> Any:
    return _kernel("z", "y", "1 / (1 + exp(-z_))", z)


def _dense_sigmoid(x: Any, w: Any, b: Any) -> Any:
    return _kernel("z b", "y", "1 / (1 + exp(-(z_ + b_)))", x @ w, b)


def _sigmoid_backward(dy: Any, y: Any) -> Any:
    return _kernel("dy y", "dz", "dy_ * y_ * (1 - y_)", dy, y)


_COMPOSED = composed(_sigmoid, _dense_sigmoid, _sigmoid_backward)
