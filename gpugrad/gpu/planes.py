"""Matrices as 16-bit planes: the terms that a float32 is split into; see kernels/planes.cuh.

kernels/split_planes.cu splits a float32 matrix, kernels/sigmoid_bias_planes.cu computes and splits
dz and sums db. kernels/plane_exponents.cu computes the exponents that one or two planes need. A
matrix of 16-bit elements is its own single plane.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from gpugrad.gpu.arguments import (
    MAX_GRID_Y,
    NULL,
    defines,
    flags,
    integers,
    packed,
    strides,
)
from gpugrad.gpu.launches import Launches
from gpugrad.gpu.split_sums import launch_column_sum
from gpugrad.planning.configurations import PLANE_EXPONENTS, PLANE_SUMS, SPLIT_PLANES
from gpugrad.planning.problem import ColumnSum
from gpugrad.planning.tiles import column_sum

EXACT = 3  # planes that represent every float32, without exponents
WORD = np.float16  # any 16-bit type: NumPy and CuPy have no bfloat16


@dataclass(frozen=True)
class Planes:
    """A matrix as planes.

    Attributes
    ----------
    array : array of shape (count, rows, columns)
        16-bit elements; bfloat16 if count is 3. Each row starts at a multiple of 16 bytes; padding
        between rows is undefined.
    exponents : array of shape (rows,) or (columns,), or None
        int32, one per outer index of the operand.
    """

    array: Any
    exponents: Any | None = None

    @property
    def count(self) -> int:
        """Number of planes."""
        return int(self.array.shape[0])

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return int(self.array.shape[1])

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return int(self.array.shape[2])

    @property
    def pitch(self) -> int:
        """Elements between rows, a multiple of those in 16 bytes."""
        if self.rows <= 1:
            return _pitch(self.columns)
        return int(self.array.strides[1]) // WORD().itemsize

    @property
    def plane_stride(self) -> int:
        """Elements between planes."""
        return self.rows * self.pitch


def own(launches: Launches, matrix: Any) -> Planes:
    """Return a matrix of 16-bit elements as a plane: a view if its rows are aligned, or a copy."""
    rows, columns = matrix.shape
    if packed(matrix) and (rows <= 1 or matrix.strides[0] >= columns * matrix.dtype.itemsize):
        return Planes(matrix.view((1, *matrix.shape), (0, *matrix.strides)))
    copy = _empty(launches, 1, rows, columns, matrix.dtype)
    launches.copy(matrix, copy.view(matrix.shape, copy.strides[1:]))
    return Planes(copy)


def split(launches: Launches, matrix: Any, count: int, outer: Literal["rows", "columns"]) -> Planes:
    """Split a float32 matrix, with exponents for its rows or columns if needed."""
    by_row = outer == "rows"
    planes = split_both(launches, matrix, count, by_row=by_row, by_column=not by_row)
    wanted = planes[0 if by_row else 1]
    assert wanted is not None
    return wanted


def split_both(
    launches: Launches, matrix: Any, count: int, *, by_row: bool, by_column: bool
) -> tuple[Planes | None, Planes | None]:
    """Split a float32 matrix for products that sum over its columns, over its rows, or both.

    Parameters
    ----------
    launches : Launches
    matrix : array of shape (rows, columns)
    count : {1, 2, 3}
        Number of planes.
    by_row, by_column : bool
        Whether to return planes with exponents of rows, and of columns. Three planes have no
        exponents, and are returned for both.

    Returns
    -------
    tuple of Planes or None
    """
    if count == EXACT:
        planes = Planes(_split(launches, matrix, count, None, None))
        return planes if by_row else None, planes if by_column else None
    of_rows, of_columns = _exponents(launches, (matrix,), False, by_row, by_column)
    return (
        Planes(_split(launches, matrix, count, of_rows, None), of_rows) if by_row else None,
        Planes(_split(launches, matrix, count, None, of_columns), of_columns)
        if by_column
        else None,
    )


def split_gradient(
    launches: Launches,
    step: ColumnSum,
    dy: Any,
    saved: Any,
    logits: bool,
    count: int,
    *,
    by_row: bool,
    by_column: bool,
    db: Any = None,
    accumulate_db: bool = False,
) -> tuple[Planes | None, Planes | None]:
    """Compute dz, split it, and sum db in the same pass.

    Parameters
    ----------
    launches : Launches
    step : ColumnSum
        The step of the column sum, also without db.
    dy, saved : arrays of shape (n, m)
        saved is z if `logits`, else y.
    count, by_row, by_column
        As for `split_both`; at least one of the two is True.
    db : array of shape (m,), optional
    accumulate_db : bool
    """
    n, m = dy.shape
    of_rows = of_columns = rows = columns = None
    if count < EXACT:
        of_rows, of_columns = _exponents(launches, (dy, saved), logits, by_row, by_column)
    if by_row or count == EXACT:
        rows = Planes(_empty(launches, count, n, m, WORD), of_rows)
    if by_column:
        columns = (
            rows if count == EXACT else Planes(_empty(launches, count, n, m, WORD), of_columns)
        )
    outputs: list[Any] = []
    for planes in (rows, None if columns is rows else columns):
        outputs += [NULL, NULL] if planes is None else [planes.array, _pointer(planes.exponents)]
    if n > 0 or db is not None:
        launch_column_sum(
            launches,
            replace(step, configuration=PLANE_SUMS),
            "sigmoid_bias_planes",
            "sigmoid_bias_planes",
            (*defines(dy.dtype, logits=logits), f"PLANES={count}"),
            (dy, *strides(dy), saved, *strides(saved), *outputs, *integers(_pitch(m))),
            (n, m),
            db,
            flags(packed(dy, saved), accumulate_db),
        )
    return rows if by_row else None, columns


def _split(launches: Launches, matrix: Any, count: int, of_rows: Any, of_columns: Any) -> Any:
    """Add the launch that splits a float32 matrix with given exponents; return its planes."""
    rows, columns = matrix.shape
    planes = _empty(launches, count, rows, columns, WORD)
    if matrix.size == 0:
        return planes
    macros = (*defines(matrix.dtype), f"PLANES={count}")
    packs = -(-columns // SPLIT_PLANES.PACK)
    lanes = SPLIT_PLANES.lanes(packs)
    grid = (-(-packs // lanes[0]), min(-(-rows // lanes[1]), MAX_GRID_Y))
    args = (
        *(matrix, *strides(matrix), planes, *integers(_pitch(columns))),
        *(_pointer(of_rows), _pointer(of_columns)),
        *(*integers(rows, columns), *flags(packed(matrix))),
    )
    launches.launch("split_planes", "split_planes", macros, SPLIT_PLANES, grid, args, lanes)
    return planes


def _exponents(
    launches: Launches, matrices: tuple[Any, ...], logits: bool, by_row: bool, by_column: bool
) -> tuple[Any, Any]:
    """Compute the exponents of a matrix, or of dz from dy and y or z, by row and by column."""
    matrix, *saved = matrices
    rows, columns = matrix.shape
    step = column_sum(rows, columns, matrix.dtype.name)
    macros = defines(matrix.dtype, logits=logits) + (("GRADIENT",) if saved else ())
    row_maxima = launches.empty((step.column_blocks, rows), np.uint32) if by_row else None
    column_maxima = launches.empty((step.splits, columns), np.uint32) if by_column else None
    if matrix.size:
        args = (
            *(matrix, *strides(matrix)),
            *((saved[0], *strides(saved[0])) if saved else (NULL, *integers(0, 0))),
            *(_pointer(row_maxima), _pointer(column_maxima)),
            *(*integers(rows, columns, step.split_length), *flags(packed(*matrices))),
        )
        grid = (step.column_blocks, step.splits)
        kernel = ("plane_exponents", "plane_maxima", macros, PLANE_EXPONENTS)
        launches.launch(*kernel, grid, args, step.lanes)
    of_rows, of_columns = (
        None if maxima is None else _exponents_of(launches, macros, maxima, empty=not matrix.size)
        for maxima in (row_maxima, column_maxima)
    )
    return of_rows, of_columns


def _exponents_of(launches: Launches, macros: tuple[str, ...], maxima: Any, *, empty: bool) -> Any:
    """Reduce partial maxima (parts, count) to exponents (count,); zeros for an empty matrix."""
    parts, count = maxima.shape
    exponents = launches.empty((count,), np.int32)
    if empty:
        launches.fill(exponents)
        return exponents
    args = (maxima, *integers(parts), exponents, *integers(count))
    kernel = ("plane_exponents", "plane_exponents", macros, PLANE_EXPONENTS)
    launches.launch(*kernel, PLANE_EXPONENTS.grid(count), args)
    return exponents


def _empty(launches: Launches, count: int, rows: int, columns: int, dtype: Any) -> Any:
    """Allocate planes with aligned rows."""
    array = launches.empty((count, rows, _pitch(columns)), dtype)
    return array.view((count, rows, columns), array.strides)


def _pitch(columns: int) -> int:
    pack = SPLIT_PLANES.PACK
    return -(-columns // pack) * pack


def _pointer(array: Any) -> Any:
    return NULL if array is None else array
