"""dz = dy · y · (1 − y) and db = Σ_i dz in one pass: kernels/sigmoid_bias_backward.cu."""

from typing import Any

from gpugrad.gpu.arguments import defines, flags, packed, strides
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import launch_column_sum


def sigmoid_bias_backward(
    launches: Launches,
    plan: Any,
    dy: Any,
    y: Any,
    z: Any,
    *,
    dz: Any,
    db: Any,
    accumulate: tuple[str, ...],
) -> None:
    """Write dz (n, m) and its column sums db (m,)."""
    saved = y if z is None else z
    launch_column_sum(
        launches,
        plan.column_sum("db"),
        "sigmoid_bias_backward",
        "sigmoid_bias_backward",
        defines(dy.dtype, result=db.dtype, logits=z is not None),
        (dy, *strides(dy), saved, *strides(saved), dz, *strides(dz)),
        dy.shape,
        db,
        flags(packed(dy, saved, dz), "dz" in accumulate, "db" in accumulate),
    )
