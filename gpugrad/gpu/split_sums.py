"""The launches of products and of sums over rows, and the second stage of their split sums."""

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
from gpugrad.planning.configurations import REDUCTION
from gpugrad.planning.problem import Gemm

QUAD = 4  # elements per access of an operand's tile
WITH_PARTIAL = (
    "matmul_backward_ffma",
    "matmul_backward_mma",
    "matmul_backward_wgmma",
    "matmul_backward_dmma",
    "dense_sigmoid_backward_dw_ffma",
)


def k_major_and_packed(*matrices: Any) -> Arguments:
    """Return the flags k_major and packed of operands that are loaded together.

    Parameters
    ----------
    *matrices : arrays of one shape (outer, contraction)
        An operand, or two that are read element by element.

    Returns
    -------
    tuple
        k_major: vectors are along K, because its stride is the smaller one;
        packed: they can do it in aligned packs.
    """
    first = matrices[0]
    k_major = abs(first.strides[1]) <= abs(first.strides[0])
    rows = matrices if k_major else tuple(matrix.T for matrix in matrices)
    return flags(k_major, packed(*rows, elements=QUAD))


def operand(matrix: Any) -> Arguments:
    """Return the arguments of an operand (outer, contraction)."""
    return (matrix, *strides(matrix), *k_major_and_packed(matrix))


def launch_gemm(
    launches: Launches,
    plan: Gemm,
    element: Any,
    stem: str,
    function: str,
    macros: tuple[str, ...],
    operands: Arguments,
    out: Any,
    accumulate: bool | None,
    extents: Arguments,
) -> None:
    """Add the launches of a product: the GEMM, and the sum of its splits.

    Parameters
    ----------
    launches : Launches
    plan : Gemm
    element : dtype
        Dtype of the call's arrays.
    stem, function, macros
        The kernel.
    operands : tuple
        The kernel's leading arguments, up to the result.
    out : array of shape (rows, columns)
    accumulate : bool or None
        Whether results are added to `out`; None if the kernel has no such flag.
    extents : tuple
        The kernel's trailing arguments.
    """
    if out.size == 0:
        return
    partial: tuple[Any, ...] = ()
    if function in WITH_PARTIAL:
        shape = (plan.splits, *out.shape)
        partial = (partial_sums(launches, element, shape) if plan.splits > 1 else NULL,)
    switches = (packed(out, elements=QUAD), *(() if accumulate is None else (accumulate,)))
    args = (*operands, out, *strides(out), *partial, *flags(*switches), *extents)
    grid = plan.grid(launches.sm_count)
    launches.launch(stem, function, macros, plan.configuration, grid, args)
    if plan.splits > 1:
        reduce_splits(launches, element, partial[0], out, bool(accumulate))


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
    """Add the launches of a column sum (column_sum.cuh): the kernel, and the sum of its splits.

    Parameters
    ----------
    launches : Launches
    plan : ColumnSum
    stem, function, macros
        The kernel.
    matrices : tuple
        The kernel's leading arguments, up to db.
    shape : tuple of int
        (n, m).
    db : array of shape (m,), or None
        None if only the kernel's other results are wanted.
    switches : tuple
        The kernel's trailing flags; the last one adds to db.
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
    """Add the launch that sums (splits, rows, columns) in order into out (rows, columns)."""
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
