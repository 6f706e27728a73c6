"""The fused backward kernels: kernels/dense_sigmoid_backward_fused_ffma.cu, _mma.cu."""

from typing import Any

from gpugrad.gpu.arguments import (
    NULL,
    Arguments,
    defines,
    flags,
    integers,
    packed,
    partial_sums,
    strides,
)
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import QUAD, reduce_splits
from gpugrad.planning.configurations import REDUCTION
from gpugrad.planning.problem import FusedLayer

STEM = "dense_sigmoid_backward_fused_"  # followed by the algorithm


def gradients(
    launches: Launches,
    plan: FusedLayer,
    dy: Any,
    saved: Any,
    x: Any,
    w: Any,
    dx: Any,
    dw: Any,
    db: Any,
    *,
    logits: bool,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,), those that are not None."""
    element = dy.dtype
    # Sums of several blocks, and results wider than the inputs, need a workspace.
    parts = {
        name: partial_sums(launches, element, (plan.splits, *out.shape))
        for name, out in (("dw", dw), ("db", db))
        if out is not None and (plan.splits > 1 or out.dtype != element)
    }

    stem = STEM + plan.algorithm
    args: Arguments = ()
    for matrix in (dy, saved, x, w):
        args += (matrix, *strides(matrix), *flags(packed(matrix)))
    for out in (dx, None if "dw" in parts else dw):
        if out is None:
            args += (NULL, *integers(0, 0), *flags(False))
        else:
            args += (out, *strides(out), *flags(packed(out, elements=QUAD)))
    args += (parts.get("dw", NULL),)
    args += (NULL, *integers(0)) if db is None or "db" in parts else (db, *strides(db))
    args += (parts.get("db", NULL),)
    args += flags(*(name in accumulate for name in ("dx", "dw", "db")))
    args += integers(plan.n, plan.k, plan.m, plan.split_length)
    macros, grid = defines(element, logits=logits), (plan.blocks, plan.splits)
    launches.launch(stem, stem, macros, plan.configuration, grid, args)
    _reduce(launches, element, parts, dw, db, accumulate)


def _reduce(
    launches: Launches,
    element: Any,
    parts: dict[str, Any],
    dw: Any,
    db: Any,
    accumulate: tuple[str, ...],
) -> None:
    """Sum the splits of dw and db in order; by one kernel if both have the same dtype."""
    if len(parts) == 2 and dw.dtype == db.dtype:
        count = dw.size + db.size
        if count == 0:
            return
        args = (
            *parts.values(),
            *integers(parts["dw"].shape[0]),
            *(dw, *strides(dw), db, *strides(db)),
            *integers(*dw.shape),
            *flags("dw" in accumulate, "db" in accumulate),
        )
        grid, macros = REDUCTION.grid(count), defines(element, result=dw.dtype)
        launches.launch("reduce_splits", "reduce_layer_splits", macros, REDUCTION, grid, args)
        return
    for name, out in (("dw", dw), ("db", db)):
        if name in parts and out.size:
            rows = out if out.ndim == 2 else out.view((1, *out.shape), (0, *out.strides))
            reduce_splits(launches, element, parts[name], rows, name in accumulate)
