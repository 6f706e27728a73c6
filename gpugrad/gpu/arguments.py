"""Kernel arguments: typed scalars, strides in elements, flags for aligned access."""

from typing import Any

import numpy as np

from gpugrad.gpu.launches import ArrayRef, Launches, contiguous
from gpugrad.planning.configurations import ELEMENTWISE
from gpugrad.planning.tiles import VECTOR_BYTES

Arguments = tuple[Any, ...]

ELEMENT = {
    "float32": "ELEMENT_F32",
    "float64": "ELEMENT_F64",
    "float16": "ELEMENT_F16",
    "bfloat16": "ELEMENT_BF16",
}
MAX_GRID_Y = 65535
NULL = np.uintp(0)  # a pointer that the kernel does not dereference


def defines(dtype: Any, *, result: Any = None, logits: bool = False) -> tuple[str, ...]:
    """Return the macros of a kernel's element type, result type and sigmoid operand."""
    chosen = [ELEMENT[dtype.name]]
    if result is not None and result.name != dtype.name:
        chosen.append("RESULT_F32")
    if logits:
        chosen.append("FROM_LOGITS")
    return tuple(chosen)


def strides(array: Any) -> Arguments:
    """Return an array's strides in elements, as 64-bit scalars."""
    return tuple(np.int64(stride // array.dtype.itemsize) for stride in array.strides)


def integers(*values: int) -> Arguments:
    """Return extents and offsets as 64-bit scalars."""
    return tuple(np.int64(value) for value in values)


def flags(*values: bool) -> Arguments:
    """Return truth values as 32-bit scalars."""
    return tuple(np.int32(value) for value in values)


def packed(*matrices: Any, elements: int | None = None) -> bool:
    """Return whether the rows of all matrices allow aligned access in packs of `elements`.

    By default a pack has 16 bytes. A larger pack takes several 16-byte accesses.
    """
    for matrix in matrices:
        size = matrix.dtype.itemsize
        align = VECTOR_BYTES if elements is None else min(VECTOR_BYTES, size * elements)
        rows, columns = matrix.shape
        if columns > 1 and matrix.strides[1] != size:
            return False
        if matrix.misalignment % align or (rows > 1 and matrix.strides[0] % align):
            return False
    return True


def aligned_rows(launches: Launches, shape: tuple[int, int], dtype: Any) -> Any:
    """Allocate a matrix whose rows start at multiples of 16 bytes, for any number of columns."""
    rows, columns = shape
    vector = VECTOR_BYTES // dtype.itemsize
    whole = launches.empty((rows, -(-columns // vector) * vector), dtype)
    return whole.view((rows, columns), whole.strides)


def partial_sums(launches: Launches, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Allocate the workspace of a split sum, in the accumulator's dtype."""
    return launches.empty(shape, np.float64 if dtype.name == "float64" else np.float32)


def elementwise(launches: Launches, stem: str, macros: tuple[str, ...], *arrays: Any) -> None:
    """Launch an element-wise kernel over arrays of one shape, any rank and strides."""
    if arrays[0].size == 0:
        return
    matrices = as_matrices(launches, arrays)
    rows, columns = matrices[0].shape
    vector = VECTOR_BYTES // matrices[0].dtype.itemsize
    grid = (-(-columns // (ELEMENTWISE.THREADS * vector)), min(rows, MAX_GRID_Y))
    args: list[Any] = []
    for matrix in matrices:
        args += [matrix, *strides(matrix)]
    args += [*integers(rows, columns), *flags(packed(*matrices))]
    launches.launch(stem, stem, macros, ELEMENTWISE, grid, tuple(args))
    if matrices[-1].index != arrays[-1].index:
        result = arrays[-1]
        steps = contiguous(result.shape, result.dtype.itemsize)
        launches.copy(matrices[-1].view(result.shape, steps), result)


def as_matrices(launches: Launches, arrays: tuple[ArrayRef, ...]) -> list[ArrayRef]:
    """View arrays of one shape as matrices with as few rows as their strides allow.

    Dimensions are sorted by the strides of the first array, so that common memory orders become
    contiguous, and merged if all arrays allow it. If more than two remain, the arrays are copied.
    """
    order = sorted(
        (axis for axis, n in enumerate(arrays[0].shape) if n != 1),
        key=lambda axis: -abs(arrays[0].strides[axis]),
    )
    shape = [arrays[0].shape[axis] for axis in order]
    steps = [[a.strides[axis] for axis in order] for a in arrays]
    d = len(shape) - 1
    while d > 0:
        if all(step[d - 1] == step[d] * shape[d] for step in steps):
            shape[d - 1 : d + 1] = [shape[d - 1] * shape[d]]
            for step in steps:
                del step[d - 1]
        d -= 1
    if len(shape) > 2:
        whole = (1, arrays[0].size)
        return [
            launches.compact(a).view(whole, contiguous(whole, a.dtype.itemsize)) for a in arrays
        ]
    full = (1,) * (2 - len(shape)) + tuple(shape)
    return [
        a.view(full, (0,) * (2 - len(step)) + tuple(step))
        for a, step in zip(arrays, steps, strict=True)
    ]
