"""Operands of products on tensor cores: matrices as 16-bit planes, see kernels/planes.cuh.

kernels/split_planes.cu splits a float32 matrix, kernels/sigmoid_bias_planes.cu the gradient dz
while it sums db. kernels/plane_exponents.cu finds the exponents that two planes or one need. A
matrix of 16-bit elements is its own only plane.
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

EXACT = 3  # planes that hold every float32, without exponents
WORD = np.float16  # any 16 bits: NumPy and CuPy know no bfloat16


@dataclass(frozen=True)
class Planes:
    """An operand as planes.

    Attributes
    ----------
    array : array of shape (count, rows, columns)
        16-bit elements, of bfloat16 if count is 3. Each row starts at a multiple of 16 bytes; what
        lies between rows is not to be read.
    exponents : array of shape (rows,) or (columns,), or None
        int32, one for each outer index of the operand.
    """

    array: Any
    exponents: Any | None = None

    @property
    def count(self) -> int:
        """Planes."""
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
        """Elements from one row to the next, a multiple of those in 16 bytes."""
        if self.rows <= 1:
            return _pitch(self.columns)
        return int(self.array.strides[1]) // WORD().itemsize

    @property
    def plane_stride(self) -> int:
        """Elements from one plane to the next."""
        return self.rows * self.pitch


def own(launches: Launches, matrix: Any) -> Planes:
    """Take a matrix of 16-bit elements as its own only plane: a view where its rows are aligned."""
    rows, columns = matrix.shape
    if packed(matrix) and (rows <= 1 or matrix.strides[0] >= columns * matrix.dtype.itemsize):
        return Planes(matrix.view((1, *matrix.shape), (0, *matrix.strides)))
    copy = _empty(launches, 1, rows, columns, matrix.dtype)
    launches.copy(matrix, copy.view(matrix.shape, copy.strides[1:]))
    return Planes(copy)


def split(launches: Launches, matrix: Any, count: int, outer: Literal["rows", "columns"]) -> Planes:
    """Split a float32 matrix, with exponents for its rows or columns where they are needed."""
    by_row = outer == "rows"
    planes = split_both(launches, matrix, count, by_row=by_row, by_column=not by_row)
    wanted = planes[0 if by_row else 1]
    assert wanted is not None
    return wanted


def split_both(
    launches: Launches, matrix: Any, count: int, *, by_row: bool, by_column: bool
) -> tuple[Planes | None, Planes | None]:
    """Split a float32 matrix for a product over its columns, for one over its rows, or for both.

    Parameters
    ----------
    launches : Launches
    matrix : array of shape (rows, columns)
    count : {1, 2, 3}
        Planes.
    by_row, by_column : bool
        Whether planes with the exponents of rows, and of columns, are wanted. Three planes have no
        exponents: the same serve both.

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
    """Compute dz and split it, and sum db in the same pass if it is given.

    Parameters
    ----------
    launches : Launches
    step : ColumnSum
        The plan of the sum over rows; without db, of the same work.
    dy, saved : arrays of shape (n, m)
        saved is z if `logits`, else y.
    count, by_row, by_column
        As for `split_both`; one of the two is wanted.
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
    """Return a float32 matrix as planes, with the exponents that were found for it."""
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
    """Find the exponents of a matrix, or of dz from dy and y or z: by row, by column, or both."""
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
    """Reduce partial maxima (parts, count) to exponents (count,); of an empty matrix, to zeros."""
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
    """Allocate planes, every row of them aligned."""
    array = launches.empty((count, rows, _pitch(columns)), dtype)
    return array.view((count, rows, columns), array.strides)


def _pitch(columns: int) -> int:
    pack = SPLIT_PLANES.PACK
    return -(-columns // pack) * pack


def _pointer(array: Any) -> Any:
    return NULL if array is None else array
