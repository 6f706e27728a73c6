"""Views of the caller's arrays as NumPy or CuPy arrays: where their elements are, what overlaps."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

OVERLAP_WORK = 100_000  # candidate solutions: well under a millisecond


class Unsupported(Exception):  # noqa: N818  (its catcher turns it into a public error)
    """An object of a known kind that cannot be viewed as a plain array."""


class DeviceUnavailable(Unsupported):
    """An array on a GPU that cannot be used here."""


class ArrayView(NamedTuple):
    """The caller's array as a NumPy or CuPy array.

    Attributes
    ----------
    array : numpy.ndarray or cupy.ndarray
    obstacle : str
        Why it is not writable; empty if it is.
    origin : object
        JAX's device, or a `protocols.Origin`: where results go.
    stream : int or None
        The stream on a GPU that may still write it.
    """

    array: Any
    obstacle: str = ""
    origin: Any = None
    stream: int | None = None


@contextmanager
def unsupported_if_it_fails(what: str = "cannot be viewed as a plain array") -> Iterator[None]:
    """Convert any exception of a framework to `Unsupported`."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unsupported(f"{what} ({reason})") from error


def imported_cupy() -> Any:
    """Import CuPy for an array on a GPU."""
    try:
        import cupy
    except ImportError:
        raise DeviceUnavailable(
            "is on a GPU, which needs CuPy (pip install 'gpugrad[cuda13]' or 'gpugrad[cuda12]')"
        ) from None
    return cupy


# ---- layouts


def as_rows(array: Any) -> Any:
    """Flatten the leading dimensions, (..., m) -> (n, m), without a copy if strides allow it."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def address(array: Any) -> int:
    """Return the address of an array's first element."""
    if isinstance(array, np.ndarray):
        return int(array.ctypes.data)
    return int(array.data.ptr)


def order_of(matrix: Any) -> str:
    """Return the memory order of a matrix: "F" if only its columns are contiguous, else "C"."""
    flags = matrix.flags
    return "F" if flags.f_contiguous and not flags.c_contiguous else "C"


def whole_elements(array: Any) -> bool:
    """Return whether an array's address and strides are multiples of its element size."""
    size = array.dtype.itemsize
    return address(array) % size == 0 and all(stride % size == 0 for stride in array.strides)


def same_memory(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same address, shape and strides."""
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides


def overlap(a: Any, b: Any) -> bool:
    """Return whether two arrays share an element; True if that is too expensive to decide."""
    if a.size == 0 or b.size == 0:
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and not np.may_share_memory(a, b):
        return False  # disjoint address ranges: ten times as fast
    try:
        shares: Any = np.shares_memory  # its stub is too narrow for max_work
        return bool(shares(_Extent(a).array(), _Extent(b).array(), max_work=OVERLAP_WORK))
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(array: Any) -> bool:
    """Return whether two elements of an array may share memory, by their strides."""
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
    """The address range of an array on any device as a NumPy array; its memory is never read."""

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

    Two arrays that own their memory share none. An array that occurs twice does not overlap itself.
    None stands for no array.
    """
    given = [one for one in buffers if one is not None]
    arrays = [one for one in operands if one is not None] + given
    views = [one for one in arrays if not one.flags.owndata]
    return bool(views) and any(
        other is not one and np.may_share_memory(one, other)
        for one in given
        for other in (views if one.flags.owndata else arrays)
    )
