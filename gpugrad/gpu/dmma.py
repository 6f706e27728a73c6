"""Products on FP64 tensor cores: kernels/matmul_backward_dmma.cu and dense_sigmoid_dmma.cu."""

from typing import Any

import numpy as np

from gpugrad.gpu.arguments import NULL, Arguments, defines, integers, strides
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import k_major_and_packed, launch_gemm
from gpugrad.planning.problem import Gemm


def product(
    launches: Launches, plan: Gemm, left: Any, right: Any, out: Any, accumulate: bool
) -> None:
    """Compute out = left rightᵀ, of left (M, K) and right (N, K)."""
    _launch(
        launches,
        plan,
        "matmul_backward_dmma",
        left,
        right,
        (),
        out,
        accumulate,
        integers(plan.rows, plan.columns, plan.contraction, plan.split_length),
    )


def forward(launches: Launches, plan: Gemm, x: Any, w: Any, b: Any, y: Any) -> None:
    """Compute y = σ(x w + b)."""
    bias = (NULL, *integers(0)) if b is None else (b, *strides(b))
    extents = integers(plan.rows, plan.columns, plan.contraction)
    _launch(launches, plan, "dense_sigmoid_dmma", x, w.T, bias, y, None, extents)


def _launch(
    launches: Launches,
    plan: Gemm,
    stem: str,
    left: Any,
    right: Any,
    bias: Arguments,
    out: Any,
    accumulate: bool | None,
    extents: Arguments,
) -> None:
    operands: Arguments = ()
    majors = []
    for name, matrix in (("LEFT_MN_MAJOR", left), ("RIGHT_MN_MAJOR", right)):
        k_major, packed = k_major_and_packed(matrix)
        steps = (  # which are multiples of a pack, where nothing is copied too
            step if extent > 1 else np.int64(0)
            for step, extent in zip(strides(matrix), matrix.shape, strict=True)
        )
        operands += (matrix, *steps, packed)
        majors += [] if k_major else [name]
    launch_gemm(
        launches,
        plan,
        left.dtype,
        stem,
        stem,
        (*defines(left.dtype), *majors),
        (*operands, *bias),
        out,
        accumulate,
        extents,
    )
