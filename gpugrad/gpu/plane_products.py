"""Products on tensor cores from planes, by mma.sync or by wgmma as the plan has it.

kernels/matmul_backward_mma.cu and _wgmma.cu, dense_sigmoid_mma.cu and _wgmma.cu.
"""

from typing import Any

from gpugrad.gpu import mma, wgmma
from gpugrad.gpu.arguments import NULL, integers, strides
from gpugrad.gpu.gemm import launch_gemm
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.plane_operands import Operand, macros, operand
from gpugrad.planning.problem import Gemm

BY = {"mma": mma, "wgmma": wgmma}


def both_products(
    launches: Launches,
    steps: dict[str, Gemm],
    dz_of_dx: Operand | None,
    dz_of_dw: Operand | None,
    x: Any,
    w: Any,
    outputs: dict[str, Any],
    accumulate: tuple[str, ...],
) -> None:
    """Compute dx = dz wᵀ and dw = xᵀ dz, as far as dz is given."""
    if dz_of_dx is not None:
        right = operand(launches, w, dz_of_dx.planes.count)
        product(launches, steps["dx"], x.dtype, dz_of_dx, right, outputs["dx"], "dx" in accumulate)
    if dz_of_dw is not None:
        left = operand(launches, x.T, dz_of_dw.planes.count)
        product(launches, steps["dw"], x.dtype, left, dz_of_dw, outputs["dw"], "dw" in accumulate)


def forward(launches: Launches, plan: Gemm, x: Any, w: Any, b: Any, y: Any) -> None:
    """Compute y = σ(x w + b)."""
    left, right = operand(launches, x, plan.planes), operand(launches, w.T, plan.planes)
    bias = (NULL, *integers(0)) if b is None else (b, *strides(b))
    kernel = f"dense_sigmoid_{plan.algorithm}"
    way = BY[plan.algorithm].way(launches, plan, left, right)
    launch_gemm(
        launches,
        plan,
        y.dtype,
        kernel,
        kernel,
        macros(y.dtype, left, right),
        (*way.maps, *left.arguments, *right.arguments, *bias),
        y,
        None,
        integers(plan.rows, plan.columns, plan.contraction),
        launch=way.launch,
        shared_bytes=way.shared_bytes,
    )


def product(
    launches: Launches,
    plan: Gemm,
    element: Any,
    left: Operand,
    right: Operand,
    out: Any,
    accumulate: bool,
) -> None:
    """Compute out = left rightᵀ; element is the dtype of the call's arrays."""
    kernel = f"matmul_backward_{plan.algorithm}"
    way = BY[plan.algorithm].way(launches, plan, left, right)
    extents = [plan.rows, plan.columns, plan.contraction, plan.split_length]
    launch_gemm(
        launches,
        plan,
        element,
        kernel,
        kernel,
        macros(element, left, right, result=out.dtype),
        (*way.maps, *left.arguments, *right.arguments),
        out,
        accumulate,
        integers(*extents, *way.splits),
        launch=way.launch,
        shared_bytes=way.shared_bytes,
    )
