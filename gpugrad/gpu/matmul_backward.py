"""dx = dy wᵀ and dw = xᵀ dy: kernels/matmul_backward_ffma.cu."""

from typing import Any

from gpugrad.gpu.gemm import launch_gemm, operand
from gpugrad.gpu.launch import defines, integers
from gpugrad.gpu.runtime import Runtime
from gpugrad.plan import Gemm


def matmul_backward(
    runtime: Runtime,
    plan: Any,
    dy: Any,
    x: Any,
    w: Any,
    *,
    dx: Any = None,
    dw: Any = None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k) and dw (k, m) from dy (n, m), x (n, k) and w (k, m)."""
    if dx is not None:
        _product(runtime, plan.gemm("dx"), dy, w, dx, "dx" in accumulate)
    if dw is not None:
        _product(runtime, plan.gemm("dw"), x.T, dy.T, dw, "dw" in accumulate)


def _product(
    runtime: Runtime, plan: Gemm, left: Any, right: Any, out: Any, accumulate: bool
) -> None:
    """Compute out = left rightᵀ, both operands (outer, contraction)."""
    launch_gemm(
        runtime,
        plan,
        "matmul_backward_ffma",
        "matmul_backward_ffma",
        defines(left.dtype, result=out.dtype),
        (*operand(left), *operand(right)),
        out,
        accumulate,
        integers(plan.rows, plan.columns, plan.contraction, plan.split_length),
    )
