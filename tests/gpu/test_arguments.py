"""Launch arguments: views with few rows, aligned packs, typed scalars."""

from typing import Any

import numpy as np
import pytest

from gpugrad.arrays.view import whole_elements
from gpugrad.gpu import arguments
from gpugrad.gpu.launches import ref_of
from gpugrad.gpu.split_sums import k_major_and_packed
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.planes import TestProgram

RUNTIME: Any = EmulatorRuntime()
CUBE = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.ones((), np.float32), (1, 1)),
        (CUBE, (1, 24)),
        (CUBE.T, (1, 24)),
        (CUBE[:, :, ::2], (1, 12)),
        (CUBE[:, :, :3], (6, 3)),
        (CUBE[:, :2], (2, 8)),
        (CUBE[::-1], (2, 12)),
        (CUBE[::-1, ::-1, ::-1], (1, 24)),
        (np.broadcast_to(np.float32(1), (5, 7)), (1, 35)),
        (CUBE[:, ::2], (1, 16)),  # three dimensions are left: copied
    ],
)
def test_matrices_have_as_few_rows_as_strides_allow(array: Any, shape: tuple[int, int]) -> None:
    (matrix,) = matrices(array)
    assert matrix.shape == shape
    assert sorted(matrix.ravel()) == sorted(array.ravel())


def matrices(*arrays: Any) -> list[Any]:
    """View arrays as matrices, with the copies that this takes."""
    program = TestProgram(RUNTIME)
    refs = tuple(program.ref(one) for one in arrays)
    found = [program.result(one) for one in arguments.as_matrices(program.launches, refs)]
    program.run()
    return found


def test_arrays_are_walked_together() -> None:
    """The order of one array's elements is that of the other's, whatever their strides."""
    other = np.asfortranarray(CUBE)
    a, b = matrices(CUBE, other)
    assert np.array_equal(a.ravel(), b.ravel())


@pytest.mark.parametrize(
    ("array", "elements", "expected"),
    [
        (np.zeros((4, 8), np.float32), None, True),
        (np.zeros((4, 7), np.float32), None, False),  # the second row is not aligned
        (np.zeros((1, 7), np.float32), None, True),
        (np.zeros((4, 8), np.float32)[:, 1:], None, False),
        (np.zeros((4, 8), np.float32)[:, ::2], None, False),
        (np.zeros((4, 8), np.float32).T, None, False),
        (np.zeros((4, 8), np.float32)[::-1], None, True),
        (np.zeros((4, 4), np.float16), None, False),  # 8 bytes a row
        (np.zeros((4, 4), np.float16), 4, True),  # packs of 8 bytes
        (np.zeros((4, 2), np.float64), None, True),
    ],
)
def test_packed(array: Any, elements: int | None, expected: bool) -> None:
    start = (-array.ctypes.data) % 16  # NumPy's own alignment is 16 or more; be sure
    assert start == 0 or array.base is not None
    assert arguments.packed(ref_of(0, array), elements=elements) is expected


def test_walks_follow_the_smaller_stride() -> None:
    matrix = ref_of(0, np.zeros((8, 8), np.float32))
    assert k_major_and_packed(matrix) == (1, 1)
    assert k_major_and_packed(matrix.T) == (0, 1)
    assert k_major_and_packed(ref_of(0, np.zeros((8, 16), np.float32)[:, ::2])) == (1, 0)
    assert k_major_and_packed(matrix, matrix.T) == (1, 0)  # read together, in the first one's order


def test_scalars_are_typed() -> None:
    scalars = [*arguments.integers(1, 2**40), *arguments.flags(True), arguments.NULL]
    assert [one.dtype.name for one in scalars] == ["int64", "int64", "int32", "uint64"]
    assert arguments.strides(CUBE) == (12, 4, 1)


@pytest.mark.parametrize("offset", [0, 1, 2, 4])
def test_whole_elements(offset: int) -> None:
    buffer = np.zeros(64, np.uint8)
    assert whole_elements(buffer[offset : offset + 16].view(np.float32)) is (offset % 4 == 0)
