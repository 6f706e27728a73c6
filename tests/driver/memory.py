"""Device memory as NumPy sees it, for launches."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .library import library


class IllegalAddressError(Exception):
    """A kernel would use memory that is not there, is free again, or another device's."""


class Place(NamedTuple):
    """An address within an allocation: all bytes of the allocation, and where the address is."""

    memory: np.ndarray
    offset: int


def place(address: int, device: int) -> Place:
    """Find the allocation that a kernel on a device reaches by an address."""
    start, size, at = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
    found = library().played_find(address, device, *map(ctypes.byref, (start, size, at)))
    if not found:
        raise IllegalAddressError(f"no memory that device {device} may use is at {address:#x}")
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size.value).from_address(at.value))
    return Place(memory, address - start.value)


def view(
    address: int, device: int, shape: Sequence[int], strides: Sequence[int], dtype: Any
) -> Any:
    """View an array in device memory; all its elements must be within one allocation."""
    if 0 in shape:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    memory, offset = place(address, device)
    reach = [step * (extent - 1) for step, extent in zip(strides, shape, strict=True)]
    first = offset + sum(step for step in reach if step < 0)
    beyond = offset + sum(step for step in reach if step > 0) + dtype.itemsize
    if first < 0 or beyond > len(memory):
        raise IllegalAddressError(f"an array at {address:#x} reaches beyond its allocation")
    return np.ndarray(shape, dtype, memory, offset, strides)
