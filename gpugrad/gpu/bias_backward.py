"""db = Σ_i dy: kernels/bias_backward.cu."""

from typing import Any

from gpugrad.gpu.arguments import defines, flags, packed, strides
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import launch_column_sum


def bias_backward(
    launches: Launches, plan: Any, dy: Any, *, db: Any, accumulate: tuple[str, ...]
) -> None:
    """Sum dy (n, m) over its rows into db (m,)."""
    launch_column_sum(
        launches,
        plan.column_sum("db"),
        "bias_backward",
        "bias_backward",
        defines(dy.dtype, result=db.dtype),
        (dy, *strides(dy)),
        dy.shape,
        db,
        flags(packed(dy), "db" in accumulate),
    )
