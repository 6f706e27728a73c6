"""The launches of a call, written down as they happen, with places where addresses were.

A call like it, on other arrays of the same shapes, strides and alignment, is the same launches with
other addresses. That holds as long as nothing but launches touches memory: a call that copies an
array on its way is not repeated.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.gpu.runtime import Encoded, Kernel, Runtime
from gpugrad.planning.gpu_costs import DeviceFacts

PLAIN = frozenset({np.int32, np.int64})  # what flags, extents and strides are
ALIGNMENT = 512  # of each part of a workspace, as CuPy's pool aligns what it gives


class ByAddress(NamedTuple):
    """An argument that is computed from an address, by its place among the addresses."""

    place: int
    size: int
    encode: Callable[[int], bytes]


class Launch(NamedTuple):
    """A launch without addresses.

    An argument is the place of an address, the bytes of a scalar, or computed from an address.
    """

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[int | bytes | ByAddress, ...]


class Template(NamedTuple):
    """All launches of a call.

    Attributes
    ----------
    launches : tuple of Launch
    addresses : int
        How many there are: of operands and results, then those within the workspace.
    parts : tuple of int
        The latter, as offsets.
    workspace : int
        Bytes that the call needs besides its results.
    """

    launches: tuple[Launch, ...]
    addresses: int
    parts: tuple[int, ...]
    workspace: int


class Recorder:
    """A runtime that notes what is asked of another one.

    It holds all arrays until it is dropped itself, so that no two have had the same memory.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._launches: list[tuple[Kernel, tuple[int, ...], tuple[int, ...], tuple[Any, ...]]] = []
        self._workspaces: list[Any] = []
        self._only_launches = True

    def facts(self, device: int | None) -> DeviceFacts:
        """Describe a GPU."""
        return self._runtime.facts(device)

    def kernel(
        self, stem: str, function: str, defines: tuple[str, ...], shared_bytes: int = 0
    ) -> Kernel:
        """Give a kernel whose launches are noted."""
        kernel = self._runtime.kernel(stem, function, defines, shared_bytes)
        return functools.partial(self._launch, kernel)

    def _launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        kernel(grid, block, args)
        self._launches.append((kernel, grid, block, args))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array, as a part of the workspace."""
        array = self._runtime.empty(shape, dtype)
        self._workspaces.append(array)
        return array

    def tensor_map(self, array: Any, box: tuple[int, ...], swizzle: int) -> Any:
        """Return what TMA needs to know of an array."""
        return self._runtime.tensor_map(array, box, swizzle)

    def compact(self, array: Any) -> Any:
        """Copy an array, which no launch of this package does."""
        self._only_launches = False
        return self._runtime.compact(array)

    def write(self, array: Any, values: Any) -> None:
        """Write values into an array, which no launch of this package does."""
        self._only_launches = False
        self._runtime.write(array, values)

    def to_device(self, array: Any) -> Any:
        """Bring a NumPy array to the device, which no launch of this package does."""
        self._only_launches = False
        return self._runtime.to_device(array)

    def to_host(self, array: Any, out: Any) -> None:
        """Bring values to the host, which no launch of this package does."""
        self._only_launches = False
        self._runtime.to_host(array, out)

    def template(self, addresses: Sequence[int]) -> Template | None:
        """Give the launches, or None where they were not all that happened.

        Parameters
        ----------
        addresses : sequence of int
            Of the call's operands and results, none of them empty. Where two are equal, calls with
            this template have to have the same two equal.
        """
        if not self._only_launches or not self._launches:
            return None
        places = {pointer: place for place, pointer in reversed([*enumerate(addresses)])}
        spans: list[tuple[int, int, int]] = []  # of the workspace's parts: first, end, offset
        end = 0
        for array in self._workspaces:
            first = array.data.ptr
            spans.append((first, first + array.nbytes, end))
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        parts: list[int] = []

        def place(array: Any) -> int | None:
            pointer = _pointer(array)
            if pointer is None or pointer in places:
                return None if pointer is None else places[pointer]
            for first, beyond, offset in spans:
                if first <= pointer < beyond:
                    parts.append(offset + pointer - first)
                    places[pointer] = len(addresses) + len(parts) - 1
                    return places[pointer]
            return None  # of a copy that somebody made: not to be repeated

        def without_address(argument: Any) -> int | bytes | ByAddress | None:
            if _is_plain(argument):
                known: bytes = argument.tobytes()
                return known
            found = place(argument)
            if found is None and isinstance(argument, Encoded):
                found = place(argument.array)
                return None if found is None else ByAddress(found, argument.size, argument.encode)
            return found

        launches = []
        for kernel, grid, block, args in self._launches:
            known = [without_address(one) for one in args]
            complete = tuple([one for one in known if one is not None])
            if len(complete) < len(known):
                return None
            launches.append(Launch(kernel, grid, block, complete))
        return Template(tuple(launches), len(addresses) + len(parts), tuple(parts), end)


def _is_plain(argument: Any) -> bool:
    """Say whether an argument is a scalar that no address can be in: no structure, no 64 bits."""
    kind = type(argument)
    return kind in PLAIN or (kind is np.uintp and not argument)  # NULL


def _pointer(argument: Any) -> int | None:
    """Give the address of an array; None where the argument is none."""
    pointer = getattr(getattr(argument, "data", None), "ptr", None)
    return None if pointer is None else int(pointer)
