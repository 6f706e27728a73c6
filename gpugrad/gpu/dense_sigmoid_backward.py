"""dx = dz wᵀ, dw = xᵀ dz, db = Σ_i dz; dz is computed where it is read, and never stored.

kernels/dense_sigmoid_backward_ffma.cu, and kernels/sigmoid_bias_backward.cu for db.
"""

from typing import Any

from gpugrad.gpu.column_sum import launch_column_sum
from gpugrad.gpu.gemm import launch_gemm, operand, walk
from gpugrad.gpu.launch import defines, flags, integers, packed, strides
from gpugrad.gpu.runtime import Runtime

STEM = "dense_sigmoid_backward_ffma"


def dense_sigmoid_backward(
    runtime: Runtime,
    plan: Any,
    dy: Any,
    y: Any,
    z: Any,
    x: Any,
    w: Any,
    *,
    dx: Any = None,
    dw: Any = None,
    db: Any = None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,); dy and y or z are (n, m)."""
    saved, logits = (y, False) if z is None else (z, True)
    (n, k), m = x.shape, w.shape[1]
    dz = (dy, *strides(dy), saved, *strides(saved))
    if dx is not None:
        launch_gemm(
            runtime,
            plan.gemm("dx"),
            STEM,
            "dense_sigmoid_backward_dx",
            defines(dy.dtype, logits=logits),
            (*dz, *walk(dy, saved), *operand(w)),
            dx,
            "dx" in accumulate,
            integers(n, k, m),
        )
    if dw is not None:
        step = plan.gemm("dw")
        launch_gemm(
            runtime,
            step,
            STEM,
            "dense_sigmoid_backward_dw",
            defines(dy.dtype, result=dw.dtype, logits=logits),
            (x, *strides(x), *walk(x.T), *dz, *walk(dy.T, saved.T)),
            dw,
            "dw" in accumulate,
            integers(n, k, m, step.split_length),
        )
    if db is not None:
        launch_column_sum(
            runtime,
            plan.column_sum("db"),
            "sigmoid_bias_backward",
            "sigmoid_bias_sum",
            defines(dy.dtype, result=db.dtype, logits=logits),
            dz,
            (n, m),
            db,
            flags(packed(dy, saved), "db" in accumulate),
        )
