"""Products by mma.sync: kernels/matmul_backward_mma.cu and dense_sigmoid_mma.cu."""

from typing import Any

from gpugrad.gpu.gemm import launch_gemm
from gpugrad.gpu.launch import Arguments, integers
from gpugrad.gpu.plane_operands import WORD_BYTES, Operand, macros
from gpugrad.gpu.runtime import Runtime
from gpugrad.plan import LARGE_TILE
from gpugrad.problem import Gemm


def product(
    runtime: Runtime,
    plan: Gemm,
    element: Any,
    left: Operand,
    right: Operand,
    out: Any,
    accumulate: bool,
) -> None:
    """Compute out = left rightᵀ; element is the dtype of the call's arrays."""
    launch_gemm(
        runtime,
        plan,
        element,
        "matmul_backward_mma",
        "matmul_backward_mma",
        macros(element, left, right, result=out.dtype),
        (*left.arguments, *right.arguments),
        out,
        accumulate,
        integers(plan.rows, plan.columns, plan.contraction, plan.split_length),
        shared_bytes=shared_bytes(plan.tile, plan.planes),
    )


def forward(runtime: Runtime, plan: Gemm, x: Operand, w: Operand, bias: Arguments, y: Any) -> None:
    """Compute y = σ(x w + b)."""
    launch_gemm(
        runtime,
        plan,
        y.dtype,
        "dense_sigmoid_mma",
        "dense_sigmoid_mma",
        macros(y.dtype, x, w),
        (*x.arguments, *w.arguments, *bias),
        y,
        None,
        integers(plan.rows, plan.columns, plan.contraction),
        shared_bytes=shared_bytes(plan.tile, plan.planes),
    )


def stages(tile: int, planes: int) -> tuple[int, int]:
    """Give BLOCK_K and STAGES of kernels/gemm_mma.cuh."""
    step = 64 if planes == 1 else 16 if (planes, tile) == (3, LARGE_TILE) else 32
    return step, 4 if step == 16 else 3


def shared_bytes(tile: int, planes: int) -> int:
    """Give the bytes of shared memory that the stages of both operands take."""
    step, count = stages(tile, planes)
    return count * planes * 2 * tile * step * WORD_BYTES
