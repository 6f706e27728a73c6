"""Boxes of tensors that bulk copies (TMA) write, from a statement that the runtime shares not."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, TensorMap, uninitialised
from tests.emulator.subjects.cases import FOLDER


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FOLDER / "boxes.cu")


def box_of(array: np.ndarray, box: tuple[int, ...], corner: tuple[int, ...]) -> np.ndarray:
    """Return elements from `corner` on, zeros out of bounds, in the order of the axes."""
    result = np.zeros(box, array.dtype)
    for index in np.ndindex(*box):
        place = tuple(i + c for i, c in zip(index, corner, strict=True))
        if all(0 <= p < extent for p, extent in zip(place, array.shape, strict=True)):
            result[index] = array[place]
    return result


def in_shared_memory(box: np.ndarray, swizzle: int) -> np.ndarray:
    """Return bytes of a dense box: pieces of 16 change places by the number of their 128 bytes."""
    dense = np.ascontiguousarray(box).view(np.uint8).reshape(-1)
    image = np.empty_like(dense)
    for start in range(0, dense.size, 16):
        row_of_banks, piece = divmod(start // 16, 8)
        piece ^= row_of_banks % max(swizzle // 16, 1)
        place = (row_of_banks * 8 + piece) * 16
        image[place : place + 16] = dense[start : start + 16]
    return image


def read_box(
    module: Module, tensor_map: TensorMap, corner: tuple[int, ...], **options: Any
) -> np.ndarray:
    """Return the bytes of a box in shared memory; `corner` in the order of the axes."""
    bytes_ = int(np.prod(tensor_map.box)) * tensor_map.array.itemsize
    whole = np.zeros((), np.dtype([(name, np.int32) for name in "xyzw"]))
    for name, index in zip("xyzw", reversed(corner), strict=False):
        whole[name] = index
    y = uninitialised(bytes_ // 4, np.uint32)
    arguments = (tensor_map, np.int32(len(corner)), whole, np.uint32(bytes_), y)
    shared_mem = -(-bytes_ // 1024) * 1024
    module.get_function("read_box")((1,), (32,), arguments, shared_mem=shared_mem, **options)
    return y.view(np.uint8)


def numbered(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of contiguous rows, all elements distinct, within memory that is never 0."""
    pitch = -(-shape[-1] // 8) * 8 + 8
    items = np.arange(1, 1 + int(np.prod(shape[:-1])) * pitch, dtype=np.uint32)
    size = np.dtype(dtype).itemsize
    memory: np.ndarray = items.astype(f"u{size}").view(dtype).reshape(*shape[:-1], pitch)
    return memory[..., : shape[-1]]


# array, box, corners: inside, beyond each end of each axis, beyond several, altogether outside
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "2": ((13, 21), (9, 16), "2,3 -4,0 0,-7 6,1 3,14 -2,9 13,0"),
    "3": (
        (3, 11, 21),
        (2, 5, 16),
        "1,4,3 -1,0,0 2,0,0 0,-3,0 0,9,0 0,0,-9 0,0,12 "
        "-1,-1,-1 2,8,18 3,0,0 0,-5,0 -2147483648,2147483647,0",
    ),
    "4": (
        (3, 2, 5, 21),
        (2, 2, 3, 16),
        "1,0,2,5 -1,0,0,0 2,0,0,0 0,-1,0,0 0,1,0,0 0,0,-2,0 "
        "0,0,4,0 0,0,0,-5 0,0,0,11 -1,-1,-1,-1 2,1,4,20",
    ),
}


@pytest.mark.parametrize("eager", [False, True], ids=["late", "eager"])
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("dtype", [np.uint16, np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("name", SHAPES)
def test_box(module: Module, name: str, dtype: Any, swizzle: int, eager: bool) -> None:
    shape, box, corners = SHAPES[name]
    if swizzle:
        box = (*box[:-1], swizzle // np.dtype(dtype).itemsize)
    array = numbered(shape, dtype)
    for text in corners.split():
        corner = tuple(map(int, text.split(",")))
        got = read_box(module, TensorMap(array, box, swizzle), corner, eager_copies=eager)
        expected = in_shared_memory(box_of(array, box, corner), swizzle)
        np.testing.assert_array_equal(got, expected, err_msg=text)


def test_rows_narrower_than_the_swizzle(module: Module) -> None:
    array, box = numbered((4, 16, 40), np.uint16), (3, 8, 16)
    got = read_box(module, TensorMap(array, box, 128), (1, 2, 8))
    np.testing.assert_array_equal(got, in_shared_memory(box_of(array, box, (1, 2, 8)), 128))


def test_axes_in_any_order(module: Module) -> None:
    """Strides need not fall from axis to axis, and those of single elements are arbitrary."""
    planes = numbered((3, 6, 40), np.uint16)
    array, box = planes.swapaxes(0, 1)[:, :, None], (4, 2, 1, 16)
    array = np.lib.stride_tricks.as_strided(array, strides=(*array.strides[:2], 3, 2))
    got = read_box(module, TensorMap(array, box, 32), (3, 1, 0, 30))
    np.testing.assert_array_equal(got, in_shared_memory(box_of(array, box, (3, 1, 0, 30)), 32))


def test_coordinates_must_be_as_many_as_dimensions(module: Module) -> None:
    tensor_map = TensorMap(numbered((3, 6, 40), np.uint16), (1, 4, 16), 0)
    with pytest.raises(EmulatorError, match=r"TMA: 2 coordinates for a tensor of 3 dimensions"):
        read_box(module, tensor_map, (0, 0))


def memory_of(*shape: int, dtype: Any = np.uint16) -> np.ndarray:
    """Return zeros that start at a multiple of 64 bytes."""
    bytes_ = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(bytes_ + 64, np.uint8)
    start = -memory.ctypes.data % 64
    whole: np.ndarray = memory[start : start + bytes_].view(dtype).reshape(shape)
    return whole


def with_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(memory_of(64), shape, strides)


REFUSED: dict[str, tuple[np.ndarray, tuple[int, ...], int, str]] = {
    "rank 1": (memory_of(64), (16,), 0, "there are 2 to 4 dimensions"),
    "rank 5": (memory_of(2, 2, 2, 2, 8), (1, 1, 1, 1, 8), 0, "there are 2 to 4 dimensions"),
    "columns": (memory_of(8, 8).T, (8, 8), 0, "rows must be contiguous"),
    "no rows": (memory_of(4, 0, 8), (1, 1, 8), 0, r"shape is \(4, 0, 8\)"),
    "long": (with_strides((2**32 + 1, 8), (16, 2)), (1, 8), 0, "expected 1 to 2"),
    "start": (memory_of(4, 16)[:, 1:9], (4, 8), 0, "must be 16-byte aligned"),
    "inner stride": (memory_of(2, 4, 12), (1, 4, 8), 0, "must be 16-byte aligned"),
    "outer stride": (with_strides((2, 2, 8), (24, 16, 2)), (1, 2, 8), 0, "16-byte aligned"),
    "repeated": (with_strides((2, 2, 8), (0, 16, 2)), (1, 2, 8), 0, "strides are"),
    "backwards": (memory_of(4, 8)[::-1], (4, 8), 0, "strides are"),
    "far": (with_strides((2, 8), (2**40, 2)), (1, 8), 0, "strides are"),
    "axes of the box": (memory_of(2, 4, 8), (4, 8), 0, "expected 3 extents"),
    "empty box": (memory_of(2, 4, 8), (0, 4, 8), 0, "expected 3 extents of 1 to 256"),
    "large box": (memory_of(2, 4, 8), (2, 257, 8), 0, "expected 3 extents of 1 to 256"),
    "row of the box": (memory_of(2, 4, 16), (2, 4, 4), 0, "a row of the box has 8 bytes"),
    "wide box": (memory_of(2, 4, 64), (2, 4, 64), 64, "a row of the box has 128 bytes"),
    "swizzle": (memory_of(2, 4, 64), (2, 4, 8), 16, "swizzle is 16"),
    "elements": (memory_of(4, 8, dtype=np.complex128), (4, 8), 0, "elements of complex128"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    array, box, swizzle, text = REFUSED[name]
    with pytest.raises(EmulatorError, match=f"tensor map: .*{text}"):
        TensorMap(array, box, swizzle)
