"""Shapes, memory layouts, dtypes and data that the tests share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpugrad.arrays.kinds import DTYPES
from gpugrad.testing.operations import dtype_of


@dataclass(frozen=True)
class Layer:
    """Extents of a dense layer: x (*lead, k), w (k, m), y (*lead, m)."""

    lead: tuple[int, ...]
    k: int
    m: int
    big: bool = False  # left out where kernels are emulated

    def __str__(self) -> str:
        return f"{'·'.join(map(str, self.lead)) or 'row'}x{self.k}x{self.m}"


LAYERS = (
    Layer((), 3, 2),
    Layer((1,), 1, 1),
    Layer((1,), 33, 31),
    Layer((31,), 33, 1),
    Layer((33,), 1, 31),
    Layer((64,), 16, 64),
    Layer((65,), 17, 63),
    Layer((63,), 65, 15),
    Layer((37,), 41, 43),
    Layer((2, 3, 5), 7, 11),
    Layer((0,), 5, 7),
    Layer((3, 0, 2), 5, 7),
    Layer((5,), 0, 7),
    Layer((5,), 7, 0),
    Layer((0,), 0, 0),
    Layer((600,), 9, 5),  # the batch is split in two
    Layer((1031,), 2, 3),  # in more
    Layer((127,), 129, 128, big=True),
    Layer((2053,), 64, 10, big=True),
    Layer((257,), 131, 521, big=True),
    Layer((4, 100), 3, 600, big=True),
)

LARGE_TILES = Layer((250,), 125, 127)  # with the fixture large_tiles, all products have them

PACKED = {  # every row and every column is a whole number of packs
    dtype: Layer((72,), 24, 40) if dtype.endswith("float16") else Layer((68,), 20, 36)
    for dtype in DTYPES
}

SHAPES = ((), (0,), (1,), (31,), (33,), (3, 0, 2), (64, 129), (2, 3, 5, 7), (1, 1, 1, 1, 1))
ROWS = tuple(dict.fromkeys((*layer.lead, layer.m) for layer in LAYERS if not layer.big))


# ---- memory layouts: the same values (but for "broadcast") in other memory


def _reversed(array: np.ndarray) -> np.ndarray:
    """Negative strides in every dimension."""
    flip = (slice(None, None, -1),) * array.ndim
    return np.array(array[flip], order="C")[flip]


def _sliced(array: np.ndarray) -> np.ndarray:
    """Every second element of a larger buffer, whose other elements are NaN."""
    larger = np.full([2 * extent + 1 for extent in array.shape], np.nan, array.dtype)
    view = larger[(slice(1, None, 2),) * array.ndim]
    view[...] = array
    return view


def _middle_columns(array: np.ndarray) -> np.ndarray:
    """Rows of a wider matrix: unit stride within a row, another between rows."""
    larger = np.full([extent + 3 for extent in array.shape], np.nan, array.dtype)
    view = larger[tuple(slice(1, 1 + extent) for extent in array.shape)]
    view[...] = array
    return view


def _padded_rows(array: np.ndarray) -> np.ndarray:
    """Rows of a wider matrix that are aligned for packs, whatever their length."""
    *lead, columns = array.shape or (1,)
    pack = 16 // array.itemsize
    pitch = (columns // pack + 2) * pack
    size = math.prod(lead) * pitch
    larger = np.full(size + 2 * pack, np.nan, array.dtype)
    first = (16 - larger.ctypes.data) % 32 // array.itemsize  # aligned for 16 bytes, not for 32
    rows = larger[first : first + size].reshape(*lead, pitch)
    view = rows[..., :columns].reshape(array.shape)
    view[...] = array
    return view


def _shifted(array: np.ndarray, by: int) -> np.ndarray:
    memory = np.zeros(array.nbytes + by, np.uint8)
    view = memory[by:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": lambda array: np.array(array, order="F"),
    "reversed": _reversed,
    "sliced": _sliced,
    "middle columns": _middle_columns,
    "padded rows": _padded_rows,
    "element offset": lambda array: _shifted(array, array.itemsize),
    "byte offset": lambda array: _shifted(array, 1),
    "broadcast": lambda array: np.broadcast_to(array[:1].copy(), array.shape),  # the first row
    "read-only": _read_only,
}
WRITABLE_LAYOUTS = tuple(name for name in LAYOUTS if name not in ("broadcast", "read-only"))
WHOLE_ELEMENTS = tuple(name for name in LAYOUTS if name != "byte offset")  # as GPUs want them


# ---- data


def random_array(shape: tuple[int, ...], dtype: str, seed: int, scale: float = 1.0) -> np.ndarray:
    """Normal numbers times powers of two from 1/16 to 16."""
    random = np.random.default_rng([seed, math.prod(shape)])
    values = random.standard_normal(shape) * 2.0 ** random.integers(-4, 5, shape)
    return np.asarray(scale * values).astype(dtype_of(dtype))


def logistic(z: np.ndarray) -> np.ndarray:
    """σ in float64, rounded to the dtype of z."""
    e = np.exp(-np.abs(z.astype(np.float64)))
    return np.asarray(np.where(z >= 0, 1, e) / (1 + e)).astype(z.dtype)


def layer_arrays(layer: Layer, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """x, w, b, logits z, y and dy of a layer. z and y are unrelated to x w, which nothing asks."""
    lead, k, m = layer.lead, layer.k, layer.m
    return {
        "x": random_array((*lead, k), dtype, seed, 0.5),
        "w": random_array((k, m), dtype, seed + 1, 0.5),
        "b": random_array((m,), dtype, seed + 2),
        **elementwise_arrays((*lead, m), dtype, seed),
    }


def elementwise_arrays(shape: tuple[int, ...], dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """z, y and dy of any one shape."""
    z = random_array(shape, dtype, seed + 3)
    return {"z": z, "y": logistic(z), "dy": random_array(shape, dtype, seed + 4)}
