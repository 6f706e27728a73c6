"""The launch of sums over rows, and the second stage of every split sum."""

from typing import Any

from gpugrad.gpu.arguments import NULL, Arguments, defines, flags, integers, partial_sums, strides
from gpugrad.gpu.launches import Launches
from gpugrad.planning.configurations import REDUCTION


def launch_column_sum(
    launches: Launches,
    plan: Any,
    stem: str,
    function: str,
    macros: tuple[str, ...],
    matrices: Arguments,
    shape: tuple[int, int],
    db: Any,
    switches: Arguments,
) -> None:
    """Launch a kernel built on column_sum.cuh, and reduce its splits.

    Parameters
    ----------
    launches : Launches
    plan : ColumnSum
    stem, function, macros
        The kernel.
    matrices : tuple
        Its leading arguments, up to db.
    shape : tuple of int
        (n, m).
    db : array of shape (m,), or None
        None if only what the kernel stores besides is wanted.
    switches : tuple
        Its trailing flags; the last is whether db is added to.
    """
    n, m = shape
    if m == 0:
        return
    partial = None
    if plan.splits > 1 and db is not None:
        partial = partial_sums(launches, matrices[0].dtype, (plan.splits, m))
    args = (
        *matrices,
        *((NULL, *integers(0)) if db is None else (db, *strides(db))),
        NULL if partial is None else partial,
        *integers(n, m, plan.split_length),
        *switches,
    )
    grid = (plan.column_blocks, plan.splits)
    launches.launch(stem, function, macros, plan.configuration, grid, args, plan.lanes)
    if partial is not None:
        reduce_splits(
            launches,
            matrices[0].dtype,
            partial,
            db.view((1, m), (0, *db.strides)),
            bool(switches[-1]),
        )


def reduce_splits(
    launches: Launches, element: Any, partial: Any, out: Any, accumulate: bool
) -> None:
    """Add the partial sums (splits, …) in order into out (rows, columns)."""
    rows, columns = out.shape
    args = (
        partial,
        *integers(partial.shape[0]),
        out,
        *strides(out),
        *integers(rows, columns),
        *flags(accumulate),
    )
    macros = defines(element, result=out.dtype)
    grid = REDUCTION.grid(rows * columns)
    launches.launch("reduce_splits", "reduce_splits", macros, REDUCTION, grid, args)
