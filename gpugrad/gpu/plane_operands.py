"""Operands of products on tensor cores: matrices as planes, K-major or MN-major as they are."""

from typing import Any, NamedTuple

from gpugrad.gpu.arguments import NULL, Arguments, defines, integers
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.planes import Planes, own, split, split_both
from gpugrad.planning.configurations import WORD_BYTES


class Operand(NamedTuple):
    """A matrix (M, K) or (N, K) as planes.

    Attributes
    ----------
    planes : Planes
    k_major : bool
        Whether a row of the planes is along K, and not along M or N.
    """

    planes: Planes
    k_major: bool

    @property
    def arguments(self) -> Arguments:
        """The kernel arguments: pointer, strides of rows and planes, exponents."""
        planes = self.planes
        exponents = NULL if planes.exponents is None else planes.exponents
        return (planes.array, *integers(planes.pitch, planes.plane_stride), exponents)


def operand(launches: Launches, matrix: Any, count: int) -> Operand:
    """Split a matrix (M, K) or (N, K) into planes, in its order in memory."""
    k_major = rows_are_contiguous(matrix)
    rows = matrix if k_major else matrix.T
    if matrix.dtype.itemsize == WORD_BYTES:
        return Operand(own(launches, rows), k_major)
    return Operand(split(launches, rows, count, "rows" if k_major else "columns"), k_major)


def of_both_products(
    launches: Launches, dy: Any, count: int, *, dx: bool, dw: bool
) -> tuple[Operand | None, Operand | None]:
    """Split dy (n, m) into planes, as A of dx and B of dw."""
    straight = rows_are_contiguous(dy)
    rows = dy if straight else dy.T
    if dy.dtype.itemsize == WORD_BYTES:
        planes = own(launches, rows)
        found = (planes if dx else None, planes if dw else None)
    elif straight:
        found = split_both(launches, rows, count, by_row=dx, by_column=dw)
    else:
        found = split_both(launches, rows, count, by_row=dw, by_column=dx)[::-1]
    for_dx, for_dw = found
    return (
        None if for_dx is None else Operand(for_dx, straight),
        None if for_dw is None else Operand(for_dw, not straight),
    )


def rows_are_contiguous(matrix: Any) -> bool:
    """Return whether the row stride is at least the column stride."""
    return bool(abs(matrix.strides[1]) <= abs(matrix.strides[0]))


def macros(element: Any, left: Operand, right: Operand, *, result: Any = None) -> tuple[str, ...]:
    """Return the macros of a product; element is the dtype of the call."""
    return (
        *defines(element, result=result),
        *(() if left.k_major else ("LEFT_MN_MAJOR",)),
        *(() if right.k_major else ("RIGHT_MN_MAJOR",)),
    )
