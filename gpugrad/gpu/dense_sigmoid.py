"""y = σ(x w + b): kernels/dense_sigmoid_ffma.cu, _mma.cu, _wgmma.cu and _dmma.cu."""

from typing import Any

from gpugrad.gpu import dmma, plane_products
from gpugrad.gpu.arguments import NULL, defines, integers, strides
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import launch_gemm, operand


def dense_sigmoid(
    launches: Launches, plan: Any, x: Any, w: Any, b: Any, *, y: Any, accumulate: tuple[str, ...]
) -> None:
    """Write y (n, m) from x (n, k), w (k, m) and b (m,)."""
    step = plan.gemm("y")
    if step.planes:
        plane_products.forward(launches, step, x, w, b, y)
        return
    if step.algorithm == "dmma":
        dmma.forward(launches, step, x, w, b, y)
        return
    bias = (NULL, *integers(0)) if b is None else (b, *strides(b))
    launch_gemm(
        launches,
        step,
        x.dtype,
        "dense_sigmoid_ffma",
        "dense_sigmoid_ffma",
        defines(x.dtype),
        (*operand(x), *operand(w.T), *bias),
        y,
        None,
        integers(*x.shape, w.shape[1]),
    )
