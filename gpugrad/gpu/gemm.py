"""The launch of matrix products, and the arguments of operands of any strides."""

from typing import Any

from gpugrad.gpu.arguments import NULL, Arguments, flags, packed, partial_sums, strides
from gpugrad.gpu.column_sum import reduce_splits
from gpugrad.gpu.launches import Launches
from gpugrad.planning.problem import Gemm

QUAD = 4  # elements that an operand's tile moves at once


def walk(*matrices: Any) -> Arguments:
    """Return the flags along and packed of operands that are loaded together.

    Parameters
    ----------
    *matrices : arrays of one shape (outer, contraction)
        An operand, or two that are read element by element.

    Returns
    -------
    tuple
        along: threads walk along the contraction, because its stride is the smaller one;
        packed: they can do it in aligned packs.
    """
    first = matrices[0]
    along = abs(first.strides[1]) <= abs(first.strides[0])
    walked = matrices if along else tuple(matrix.T for matrix in matrices)
    return flags(along, packed(*walked, elements=QUAD))


def operand(matrix: Any) -> Arguments:
    """Return the arguments of an operand (outer, contraction)."""
    return (matrix, *strides(matrix), *walk(matrix))


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
    """Launch a product and reduce its splits.

    Parameters
    ----------
    launches : Launches
    plan : Gemm
    element : dtype
        Of the call's arrays.
    stem, function, macros
        The kernel.
    operands : tuple
        Its leading arguments, up to the result.
    out : array of shape (rows, columns)
    accumulate : bool or None
        Whether `out` is added to; None where the kernel has no such flag.
    extents : tuple
        Its trailing arguments.
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


WITH_PARTIAL = (
    "matmul_backward_ffma",
    "matmul_backward_mma",
    "matmul_backward_wgmma",
    "matmul_backward_dmma",
    "dense_sigmoid_backward_dw_ffma",
)
