"""Arrays whose elements must not be read before they are written."""

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

NAN_POISON = 0xFF  # all bits set: a NaN in every floating-point format
OTHER_POISON = 0xB5

_owners: dict[int, int] = {}  # id of an array that owns its memory: its poison byte


def uninitialised(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> np.ndarray:
    """Return a new array full of a poison byte; the checker refuses to read what still holds it."""
    array = np.empty(shape, dtype)
    poison = OTHER_POISON if array.dtype.kind in "biu" else NAN_POISON
    array.reshape(-1).view(np.uint8)[...] = poison
    _owners[id(array)] = poison
    weakref.finalize(array, _owners.pop, id(array), None).atexit = False
    return array


def poison_of(array: np.ndarray) -> int | None:
    """Return the poison byte of the array that `array` is a view of; None for ordinary arrays."""
    owner: Any = array
    while getattr(owner, "base", None) is not None:  # as_strided puts an object between arrays
        owner = owner.base
    return _owners.get(id(owner))
