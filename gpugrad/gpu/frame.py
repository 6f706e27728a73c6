"""Arguments of launches as the driver reads them: memory that is filled with addresses."""

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.gpu.recording import ByAddress, Template

WORD = 8  # bytes of an address, and the alignment of scalars
WIDE = 128  # the alignment of larger arguments: a tensor map's, the strictest there is

Head = tuple[int, int, int, int, int, int, int, int]  # function, grid, block, shared memory


class Encoded:
    """Where an argument is that depends on an address, and for which one it is there.

    Of a call like the one before, on the same memory, nothing is to be done: that saves 0.5 µs for
    each of the four tensor maps of a layer.
    """

    __slots__ = ("encode", "place", "size", "start", "where")

    def __init__(self, start: int, argument: ByAddress) -> None:
        self.start, self.size, self.encode = start, argument.size, argument.encode
        self.place = argument.place
        self.where: int | None = None


class Frame:
    """The arguments of all launches of a call, for one call at a time.

    The driver has read them when a launch returns, also of a launch that a graph captures.

    Parameters
    ----------
    template : Template
    heads : sequence of tuple
        For each launch what the driver takes before the stream.

    Attributes
    ----------
    calls : tuple of (Head, int)
        For each launch its head, and the address of its parameters.
    """

    def __init__(self, template: Template, heads: Sequence[Head]) -> None:
        end = WORD * template.addresses
        places: list[list[int]] = []
        scalars: list[tuple[int, bytes]] = []
        self._encoded: list[Encoded] = []
        for launch in template.launches:
            places.append([])
            for one in launch.args:
                if isinstance(one, int):
                    places[-1].append(WORD * one)
                    continue
                size = one.size if isinstance(one, ByAddress) else len(one)
                alignment = WORD if size <= WORD else WIDE
                start = -(-end // alignment) * alignment
                end = start + size
                places[-1].append(start)
                if isinstance(one, ByAddress):
                    self._encoded.append(Encoded(start, one))
                else:
                    scalars.append((start, one))
        self._memory = ctypes.create_string_buffer(end + WIDE)
        self._base = -(-ctypes.addressof(self._memory) // WIDE) * WIDE
        for start, value in scalars:
            ctypes.memmove(self._base + start, value, len(value))
        self._parameters = [
            (ctypes.c_void_p * len(one))(*(self._base + start for start in one)) for one in places
        ]
        self.calls = tuple(zip(heads, map(ctypes.addressof, self._parameters), strict=True))
        # One call of C for all addresses: a third of what a loop over them takes.
        self._addresses: Callable[..., Any] = functools.partial(
            struct.Struct(f"={template.addresses}Q").pack_into,
            self._memory,
            self._base - ctypes.addressof(self._memory),
        )

    def insert(self, addresses: Sequence[int]) -> None:
        """Put in the addresses of a call."""
        self._addresses(*addresses)
        for one in self._encoded:
            where = addresses[one.place]
            if where != one.where:
                ctypes.memmove(self._base + one.start, one.encode(where), one.size)
                one.where = where
