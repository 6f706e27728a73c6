"""dx = dz wᵀ, dw = xᵀ dz, db = Σ_i dz.

Layers with few outputs use a fused kernel (gpugrad/gpu/fused.py), with a separate dw for few rows.
Other layers use a kernel per product:

By FFMA (kernels/dense_sigmoid_backward_dx_ffma.cu, _dw_ffma.cu) dz is computed when it is loaded
and never stored. On tensor cores one pass computes dz, sums db and stores dz: as planes
(kernels/sigmoid_bias_planes.cu), or in its own dtype (kernels/sigmoid_bias_backward.cu).
"""

from typing import Any, NamedTuple

from gpugrad.gpu import dmma, fused, plane_products
from gpugrad.gpu.arguments import Arguments, aligned_rows, defines, flags, integers, packed, strides
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.plane_operands import Operand
from gpugrad.gpu.planes import own, split_gradient
from gpugrad.gpu.split_sums import k_major_and_packed, launch_column_sum, launch_gemm, operand
from gpugrad.planning.problem import Gemm


class Upstream(NamedTuple):
    """The operands of dz: dy, and y or (if `logits`) z, all (n, m)."""

    dy: Any
    saved: Any
    logits: bool

    @property
    def arguments(self) -> Arguments:
        """The kernel arguments of both matrices."""
        return (self.dy, *strides(self.dy), self.saved, *strides(self.saved))


def dense_sigmoid_backward(
    launches: Launches,
    plan: Any,
    dy: Any,
    y: Any,
    z: Any,
    x: Any,
    w: Any,
    *,
    dx: Any = None,
    dw: Any = None,
    db: Any = None,
    accumulate: tuple[str, ...],
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,); dy and y or z are (n, m)."""
    upstream = Upstream(dy, y, False) if z is None else Upstream(dy, z, True)
    if plan.layer is not None:
        separate_dw = plan.separate_dw
        if separate_dw is not None:
            _dw(launches, separate_dw, upstream, x, w, dw, "dw" in accumulate)
            dw = None
        if any(one is not None for one in (dx, dw, db)):
            arrays = (upstream.dy, upstream.saved, x, w, dx, dw, db)
            logits = upstream.logits
            fused.gradients(launches, plan.layer, *arrays, logits=logits, accumulate=accumulate)
        return
    outputs = {name: out for name, out in (("dx", dx), ("dw", dw)) if out is not None}
    steps = {name: plan.gemm(name) for name in outputs}
    by = {name: step.algorithm for name, step in steps.items()}
    if any(step.planes for step in steps.values()):
        planes = _planes(launches, plan, upstream, steps, db, "db" in accumulate)
        plane_products.both_products(launches, steps, *planes, x, w, outputs, accumulate)
    elif "dmma" in by.values():
        dz = _dz(launches, plan, upstream, db, "db" in accumulate)
        for name, operands in (("dx", (dz, w)), ("dw", (x.T, dz.T))):
            if name in steps:
                dmma.product(launches, steps[name], *operands, outputs[name], name in accumulate)
    elif db is not None:
        _sum(launches, plan, "sigmoid_bias_sum", upstream, (), db, "db" in accumulate)
    for name, algorithm in by.items():
        if algorithm == "ffma":
            product = _dx if name == "dx" else _dw
            product(launches, steps[name], upstream, x, w, outputs[name], name in accumulate)


def _planes(
    launches: Launches,
    plan: Any,
    upstream: Upstream,
    steps: dict[str, Gemm],
    db: Any,
    accumulate_db: bool,
) -> tuple[Operand | None, Operand | None]:
    """Compute dz as planes for dx and for dw, as far as they use planes, and db."""
    count = {name: step.planes for name, step in steps.items() if step.planes}
    if upstream.dy.dtype.name == "float32":
        of_dx, of_dw = split_gradient(
            launches,
            plan.column_sum("db"),
            *upstream,
            max(count.values()),
            by_row="dx" in count,
            by_column="dw" in count,
            db=db,
            accumulate_db=accumulate_db,
        )
    else:
        dz = own(launches, _dz(launches, plan, upstream, db, accumulate_db))
        of_dx, of_dw = (dz if name in count else None for name in ("dx", "dw"))
    return (
        None if of_dx is None else Operand(of_dx, k_major=True),
        None if of_dw is None else Operand(of_dw, k_major=False),
    )


def _dz(launches: Launches, plan: Any, upstream: Upstream, db: Any, accumulate_db: bool) -> Any:
    """Compute dz (n, m) in the dtype of dy, and db in the same pass."""
    dz = aligned_rows(launches, upstream.dy.shape, upstream.dy.dtype)
    _sum(launches, plan, "sigmoid_bias_backward", upstream, (dz,), db, accumulate_db)
    return dz


def _sum(
    launches: Launches,
    plan: Any,
    function: str,
    upstream: Upstream,
    dz: tuple[Any, ...],
    db: Any,
    accumulate_db: bool,
) -> None:
    dy, saved, logits = upstream
    stored = [one for matrix in dz for one in (matrix, *strides(matrix))]
    switches = (packed(dy, saved, *dz), *(False for _ in dz), accumulate_db)
    launch_column_sum(
        launches,
        plan.column_sum("db"),
        "sigmoid_bias_backward",
        function,
        defines(dy.dtype, result=None if db is None else db.dtype, logits=logits),
        (*upstream.arguments, *stored),
        dy.shape,
        db,
        flags(*switches),
    )


def _dx(
    launches: Launches, step: Gemm, upstream: Upstream, x: Any, w: Any, dx: Any, accumulate: bool
) -> None:
    dy, saved, logits = upstream
    launch_gemm(
        launches,
        step,
        dy.dtype,
        "dense_sigmoid_backward_dx_ffma",
        "dense_sigmoid_backward_dx_ffma",
        defines(dy.dtype, logits=logits),
        (*upstream.arguments, *k_major_and_packed(dy, saved), *operand(w)),
        dx,
        accumulate,
        integers(*x.shape, w.shape[1]),
    )


def _dw(
    launches: Launches, step: Gemm, upstream: Upstream, x: Any, w: Any, dw: Any, accumulate: bool
) -> None:
    dy, saved, logits = upstream
    launch_gemm(
        launches,
        step,
        dy.dtype,
        "dense_sigmoid_backward_dw_ffma",
        "dense_sigmoid_backward_dw_ffma",
        defines(dy.dtype, result=dw.dtype, logits=logits),
        (
            x,
            *strides(x),
            *k_major_and_packed(x.T),
            *upstream.arguments,
            *k_major_and_packed(dy.T, saved.T),
        ),
        dw,
        accumulate,
        integers(*x.shape, w.shape[1], step.split_length),
    )
