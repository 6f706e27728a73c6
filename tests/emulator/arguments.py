"""From Python arguments to what a kernel receives: addresses of guarded copies, typed scalars."""

import ctypes
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import EmulatorError
from .tensor_maps import TensorMap
from .uninitialised_arrays import poison_of

MAX_ITEM = 8  # bytes that the checker distinguishes at most
KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel; `kind` as in the signature that entry_points.h writes."""

    index: int
    name: str
    kind: str
    size: int

    def __str__(self) -> str:
        return f"argument {self.index}" + (f" ({self.name})" if self.name else "")

    @property
    def is_pointer(self) -> bool:
        """Does it take an array?"""
        return self.kind in "pP"


@dataclass(frozen=True)
class Pointer:
    """An address in memory of which nothing is known but where it begins and ends.

    `memory` are its bytes, and the address is `offset` bytes behind the first.
    """

    memory: np.ndarray
    offset: int

    @property
    def address(self) -> int:
        """What the kernel is given."""
        return int(self.memory.ctypes.data + self.offset)

    def elements(self, size: int) -> np.ndarray:
        """Return the memory as elements of so many bytes, one of which begins at the address."""
        if size not in (2, 4, 8):
            return self.memory
        first = self.offset % size
        return self.memory[first : first + (len(self.memory) - first) // size * size].view(
            f"u{size}"
        )


@dataclass(frozen=True)
class Extent:
    """An array argument and the bytes between its lowest and its highest element."""

    parameter: Parameter
    array: np.ndarray
    low: int
    high: int
    writable: bool
    address: int  # of what the kernel is given


@dataclass
class Group:
    """Arrays that share memory, and the copy that the kernel sees of it."""

    extents: list[Extent]
    low: int
    high: int
    copy: int = 0
    members: np.ndarray | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Bytes from the lowest to the highest element."""
        return self.high - self.low

    @property
    def writable(self) -> bool:
        """May the kernel write to it, through any of its parameters?"""
        return any(extent.writable for extent in self.extents)

    @property
    def item_bytes(self) -> int:
        """Bytes that the checker distinguishes: they divide all items and their offsets."""
        steps = [MAX_ITEM, self.size or MAX_ITEM]
        for extent in self.extents:
            steps += [extent.array.itemsize, extent.low - self.low]
        return int(np.gcd.reduce(steps))


def parse_signature(text: str, names: list[str]) -> list[Parameter]:
    """Return the parameters that a signature such as "P4,p4,i8," lists."""
    found = re.findall(r"(\w)(\d+),", text)
    return [
        Parameter(index, names[index] if index < len(names) else "", kind, int(size))
        for index, (kind, size) in enumerate(found)
    ]


def extent_of(parameter: Parameter, argument: Any) -> Extent | None:
    """Return the memory of an array argument; None for anything else."""
    if isinstance(argument, Pointer):
        array = argument.elements(parameter.size)
        low, high = np.lib.array_utils.byte_bounds(array)
        return Extent(parameter, array, low, high, parameter.kind == "p", argument.address)
    array = argument.array if isinstance(argument, TensorMap) else argument
    if not isinstance(array, np.ndarray) or (parameter.kind == "s" and array.ndim == 0):
        return None
    if isinstance(argument, np.ndarray) and not parameter.is_pointer:
        raise EmulatorError(f"{parameter}: an array is given for a scalar")
    if parameter.is_pointer and parameter.size not in (1, array.itemsize):
        raise EmulatorError(
            f"{parameter}: the kernel's elements have {parameter.size} bytes, "
            f"those of the array ({array.dtype}) have {array.itemsize}"
        )
    low = high = array.ctypes.data
    if array.size:
        low, high = np.lib.array_utils.byte_bounds(array)
    writable = parameter.kind == "p"
    if writable and not array.flags.writeable:
        raise EmulatorError(f"{parameter}: the array is read-only and the parameter is not const")
    return Extent(parameter, array, low, high, writable, array.ctypes.data)


def group_by_memory(extents: list[Extent]) -> list[Group]:
    """Return the groups of arrays, those that overlap in one."""
    groups: list[Group] = []
    for extent in sorted(extents, key=lambda e: (e.low, e.high)):
        if groups and extent.low < groups[-1].high:
            groups[-1].extents.append(extent)
            groups[-1].high = max(groups[-1].high, extent.high)
        else:
            groups.append(Group([extent], extent.low, extent.high))
    return groups


def mark_members(group: Group) -> np.ndarray | None:
    """Return a byte an item of the group, 0 where no array has it; None if arrays have all."""
    step = group.item_bytes
    if not group.size or any(e.array.size * e.array.itemsize == group.size for e in group.extents):
        return None
    marks = np.zeros(group.size, np.uint8)
    for extent in group.extents:
        start = extent.array.ctypes.data - group.low
        for byte in range(0, extent.array.itemsize, step):
            view = np.ndarray(
                extent.array.shape, np.uint8, marks, start + byte, extent.array.strides
            )
            view[...] = 1
    items = np.ascontiguousarray(marks[::step])
    return None if items.all() else items


def poison_of_group(group: Group) -> int | None:
    """Return the poison byte if every array of the group was made by uninitialised()."""
    found = {poison_of(extent.array) for extent in group.extents}
    return found.pop() if len(found) == 1 else None


def pack_scalar(parameter: Parameter, argument: Any) -> bytes:
    """Return the bytes of an argument that is no array."""
    if parameter.is_pointer:
        is_null = isinstance(argument, np.unsignedinteger) and argument == 0
        if argument is not None and not is_null:
            raise EmulatorError(f"{parameter}: an array is needed, got {type(argument).__name__}")
        return bytes(8)
    if isinstance(argument, bytes) and parameter.kind == "s":
        packed = argument
    elif isinstance(argument, (np.generic, np.ndarray)):
        value = np.asarray(argument)
        packed = value.tobytes()
        if parameter.kind != "s" and value.dtype.kind != parameter.kind:
            packed = b""
    else:
        raise EmulatorError(
            f"{parameter}: a NumPy scalar of a definite type is needed, "
            f"got {type(argument).__name__}"
        )
    if len(packed) != parameter.size:
        expected = f"{parameter.size} bytes by value"
        if parameter.kind in KINDS:
            bits = "" if parameter.kind == "b" else str(parameter.size * 8)
            expected = KINDS[parameter.kind] + bits
        given = argument.dtype if isinstance(argument, np.generic) else f"{len(packed)} bytes"
        raise EmulatorError(f"{parameter}: the kernel takes {expected}, got {given}")
    return packed


class Aligned:
    """A parameter's bytes at a 64-byte boundary, as alignas(64) structures need."""

    ALIGNMENT = 64

    def __init__(self, content: bytes) -> None:
        self._memory = ctypes.create_string_buffer(len(content) + self.ALIGNMENT)
        start = ctypes.addressof(self._memory)
        self.address = start + -start % self.ALIGNMENT
        ctypes.memmove(self.address, content, len(content))
