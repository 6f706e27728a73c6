"""Views of the caller's arrays as NumPy or CuPy arrays: where their elements are, what overlaps."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

OVERLAP_WORK = 100_000  # candidate solutions: well under a millisecond


class Unsupported(Exception):  # noqa: N818  (an answer, turned into an error by its catcher)
    """An object that is of a known kind but cannot be viewed as a plain array."""


class DeviceUnavailable(Unsupported):
    """An array on a GPU that cannot be used here."""


class ArrayView(NamedTuple):
    """An array of the caller's, and the same memory as a NumPy or CuPy array."""

    array: Any
    obstacle: str = ""  # why it cannot be written to
    place: Any = None  # JAX's device, or the namespace and its device, to which results return
    stream: int | None = None  # on a GPU, which may still write to it


@contextmanager
def unsupported_if_it_fails(what: str = "cannot be viewed as a plain array") -> Iterator[None]:
    """Turn whatever a framework says of its special arrays into an answer."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unsupported(f"{what} ({reason})") from error


def imported_cupy() -> Any:
    """Return CuPy, which memory on a GPU needs."""
    try:
        import cupy
    except ImportError:
        raise DeviceUnavailable(
            "is on a GPU, which needs CuPy (pip install 'gpugrad[cuda13]' or 'gpugrad[cuda12]')"
        ) from None
    return cupy


# ---- layouts


def as_rows(array: Any) -> Any:
    """Flatten the leading dimensions, (..., m) -> (n, m), without a copy where strides allow it."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def address(array: Any) -> int:
    """Return the address of an array's first element."""
    if isinstance(array, np.ndarray):
        return int(array.ctypes.data)
    return int(array.data.ptr)


def order_of(matrix: Any) -> str:
    """Return the memory order of a matrix: "F" where only columns are contiguous, or else "C"."""
    flags = matrix.flags
    return "F" if flags.f_contiguous and not flags.c_contiguous else "C"


def whole_elements(array: Any) -> bool:
    """Return whether an array's address and strides are multiples of its element size."""
    size = array.dtype.itemsize
    return address(array) % size == 0 and all(stride % size == 0 for stride in array.strides)


def same_memory(a: Any, b: Any) -> bool:
    """Return whether two arrays are the same elements in the same order."""
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides


def overlap(a: Any, b: Any) -> bool:
    """Return whether two arrays share an element (True where that is too hard to decide)."""
    if a.size == 0 or b.size == 0:
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and not np.may_share_memory(a, b):
        return False  # the ranges of their addresses are disjoint: known in a tenth of the time
    try:
        shares: Any = np.shares_memory  # its stub knows only some values of max_work
        return bool(shares(_Extent(a).array(), _Extent(b).array(), max_work=OVERLAP_WORK))
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(array: Any) -> bool:
    """Return whether two elements of an array may share memory: strides that do not nest."""
    if array.size == 0:
        return False
    reach = int(array.dtype.itemsize)
    for stride, extent in sorted(
        (abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if stride < reach:
            return True
        reach += stride * (extent - 1)
    return False


class _Extent:
    """The memory of an array on any device, for arithmetic on addresses; never read."""

    def __init__(self, array: Any) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (address(array), True),
            "shape": tuple(array.shape),
            "strides": tuple(array.strides),
            "typestr": f"|V{array.dtype.itemsize}",
        }

    def array(self) -> np.ndarray[Any, Any]:
        return np.asarray(self)


def may_overlap(buffers: Sequence[Any], operands: Sequence[Any]) -> bool:
    """Return whether NumPy buffers may share memory with another array, by ranges of addresses.

    Arrays that own their memory share none, which is quicker to see. An array that is there twice
    shares none with itself. None among the arrays is no array.
    """
    given = [one for one in buffers if one is not None]
    arrays = [one for one in operands if one is not None] + given
    views = [one for one in arrays if not one.flags.owndata]
    return bool(views) and any(
        other is not one and np.may_share_memory(one, other)
        for one in given
        for other in (views if one.flags.owndata else arrays)
    )
