"""dx = dy wᵀ and dw = xᵀ dy: kernels/matmul_backward_ffma.cu, _mma.cu, _wgmma.cu, _dmma.cu."""

from typing import Any

from gpugrad.gpu import dmma, plane_products
from gpugrad.gpu.arguments import defines, integers
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.plane_operands import of_both_products
from gpugrad.gpu.split_sums import launch_gemm, operand
from gpugrad.planning.problem import Gemm


def matmul_backward(
    launches: Launches,
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
    outputs = {name: out for name, out in (("dx", dx), ("dw", dw)) if out is not None}
    steps = {name: plan.gemm(name) for name in outputs}
    planes = {name: step.planes for name, step in steps.items() if step.planes}
    if planes:
        of_dx, of_dw = of_both_products(
            launches, dy, max(planes.values()), dx="dx" in planes, dw="dw" in planes
        )
        plane_products.both_products(launches, steps, of_dx, of_dw, x, w, outputs, accumulate)
    operands = {"dx": (dy, w), "dw": (x.T, dy.T)}
    for name in outputs.keys() - planes.keys():
        product = dmma.product if steps[name].algorithm == "dmma" else _product
        product(launches, steps[name], *operands[name], outputs[name], name in accumulate)


def _product(
    launches: Launches, plan: Gemm, left: Any, right: Any, out: Any, accumulate: bool
) -> None:
    """Compute out = left rightᵀ, of left (M, K) and right (N, K)."""
    launch_gemm(
        launches,
        plan,
        left.dtype,
        "matmul_backward_ffma",
        "matmul_backward_ffma",
        defines(left.dtype, result=out.dtype),
        (*operand(left), *operand(right)),
        out,
        accumulate,
        integers(plan.rows, plan.columns, plan.contraction, plan.split_length),
    )
