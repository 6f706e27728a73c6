"""Products of planes on tensor cores, by mma.sync or wgmma.

kernels/matmul_backward_mma.cu and _wgmma.cu, dense_sigmoid_mma.cu and _wgmma.cu.
"""

from typing import Any

from gpugrad.gpu.arguments import NULL, Arguments, integers, strides
from gpugrad.gpu.launches import Launches, TensorMap
from gpugrad.gpu.plane_operands import Operand, macros, operand
from gpugrad.gpu.split_sums import launch_gemm
from gpugrad.planning.configurations import Wgmma
from gpugrad.planning.problem import Gemm


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
    """Compute dx = dz wᵀ and dw = xᵀ dz; each is skipped if its dz is None."""
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
    launch_gemm(
        launches,
        plan,
        y.dtype,
        kernel,
        kernel,
        macros(y.dtype, left, right),
        (*maps(plan, left, right), *left.arguments, *right.arguments, *bias),
        y,
        None,
        integers(plan.rows, plan.columns, plan.contraction),
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
    extents = [plan.rows, plan.columns, plan.contraction, plan.split_length]
    extents += [plan.splits] * plan.configuration.persistent
    launch_gemm(
        launches,
        plan,
        element,
        kernel,
        kernel,
        macros(element, left, right, result=out.dtype),
        (*maps(plan, left, right), *left.arguments, *right.arguments),
        out,
        accumulate,
        integers(*extents),
    )


def maps(plan: Gemm, left: Operand, right: Operand) -> Arguments:
    """Return the tensor maps of both operands, for kernels that use TMA."""
    one = plan.configuration
    if not isinstance(one, Wgmma):
        return ()
    return (
        TensorMap(left.planes.array, *one.box(one.BLOCK_M, one.CLUSTER_N, left.k_major)),
        TensorMap(right.planes.array, *one.box(one.BLOCK_N, one.CLUSTER_M, right.k_major)),
    )
