"""What an operation would launch: kernels, copies, and the workspace between them.

An operation computes a `Program` from its plan and from the layouts of its arrays. Nothing here
touches memory, so that a program can be made, looked at and tested on any machine.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpugrad.arrays.view import address
from gpugrad.operations import OPERATIONS
from gpugrad.planning.configurations import Configuration
from gpugrad.planning.problem import Plan

WORKSPACE_ALIGNMENT = 512  # bytes, of each part of a workspace, as CuPy's pool aligns what it gives
MISALIGNED = 15  # the bits of an address that decide whether 16 bytes can be moved at once


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """An array of a call without its data: which one it is, and its layout.

    Attributes
    ----------
    place : int
        Of the call's arrays, from 0 on, or of the workspace's parts, from -1 downwards.
    shape, strides : tuple of int
        Strides in bytes.
    dtype : numpy.dtype
    misalignment : int
        The address modulo 16.
    """

    place: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    misalignment: int = 0

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * int(self.dtype.itemsize)

    @property
    def T(self) -> "ArrayRef":  # noqa: N802  (as NumPy calls it)
        """The transposed array."""
        return self.view(self.shape[::-1], self.strides[::-1])

    def view(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> "ArrayRef":
        """Return the same memory with another shape and other strides in bytes."""
        return replace(self, shape=shape, strides=strides)


def ref_of(place: int, array: Any) -> ArrayRef:
    """Return the reference to an array of the call."""
    where = address(array) & MISALIGNED
    return ArrayRef(place, tuple(array.shape), tuple(array.strides), array.dtype, where)


def new_ref(place: int, shape: tuple[int, ...], dtype: Any, order: str) -> ArrayRef:
    """Return the reference to an array that is to be allocated, in order "C" or "F"."""
    if order == "F":
        return new_ref(place, shape[::-1], dtype, "C").T
    return ArrayRef(place, shape, contiguous(shape, dtype.itemsize), dtype)


class TensorMap(NamedTuple):
    """What TMA needs to know to copy boxes of an array: a kernel's argument.

    The axes of the box are those of the array; the swizzle is in bytes. Of an empty array, of which
    nothing is copied, the map is blank.
    """

    array: ArrayRef
    box: tuple[int, ...]
    swizzle: int


class Launch(NamedTuple):
    """One launch of a kernel.

    Attributes
    ----------
    stem, function : str
        The kernel file, and the kernel in it.
    macros : tuple of str
        Of the instantiation.
    grid, block : tuple of int
    args : tuple
        Of `ArrayRef`, `TensorMap` and NumPy scalars.
    shared_bytes : int
        Of dynamic shared memory.
    """

    stem: str
    function: str
    macros: tuple[str, ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]
    shared_bytes: int = 0

    def __str__(self) -> str:
        shared = f", {self.shared_bytes} bytes of shared memory" if self.shared_bytes else ""
        grid, block = ("×".join(map(str, one)) for one in (self.grid, self.block))
        return f"{self.function} [{' '.join(self.macros)}] grid {grid}, block {block}{shared}"


class Copy(NamedTuple):
    """A copy of an array's elements, between any two layouts of one shape."""

    source: ArrayRef
    target: ArrayRef

    def __str__(self) -> str:
        return f"copy {'×'.join(map(str, self.source.shape))} {self.source.dtype.name}"


class Fill(NamedTuple):
    """Zeros for an array."""

    target: ArrayRef

    def __str__(self) -> str:
        return f"zeros {'×'.join(map(str, self.target.shape))}"


Step = Launch | Copy | Fill


class Program(NamedTuple):
    """All that a call does on the device, in order.

    Attributes
    ----------
    steps : tuple
    parts : tuple of ArrayRef
        Of the workspace.
    """

    steps: tuple[Step, ...]
    parts: tuple[ArrayRef, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Bytes from the start of the workspace to each part, and to its end.

        A part without elements has some bytes too, so that its address is within the workspace.
        """
        found = [0]
        for part in self.parts:
            blocks = max(1, -(-part.nbytes // WORKSPACE_ALIGNMENT))
            found.append(found[-1] + blocks * WORKSPACE_ALIGNMENT)
        return tuple(found)

    def __str__(self) -> str:
        lines = [*map(str, self.steps)]
        return "\n".join([*lines, f"workspace of {self.offsets[-1]} bytes" * bool(self.parts)])


@dataclass
class Launches:
    """A program in the making.

    Attributes
    ----------
    sm_count : int
        Multiprocessors of the device, for kernels whose blocks stay.
    """

    sm_count: int
    steps: list[Step] = field(default_factory=list)
    parts: list[ArrayRef] = field(default_factory=list)

    def program(self) -> Program:
        """Return what has been added."""
        return Program(tuple(self.steps), tuple(self.parts))

    def launch(
        self,
        stem: str,
        function: str,
        chosen: tuple[str, ...],
        configuration: Configuration,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        block: tuple[int, ...] = (),
    ) -> None:
        """Add a launch.

        Parameters
        ----------
        stem, function : str
            The kernel.
        chosen : tuple of str
            The macros that choose what is computed, besides those of the configuration.
        configuration : Configuration
        grid, args : tuple
        block : tuple of int, optional
            Where it is not that of the configuration.
        """
        macros, block = (*chosen, *configuration.macros), block or configuration.block
        shared = configuration.shared_bytes
        self.steps.append(Launch(stem, function, macros, grid, block, args, shared))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ArrayRef:
        """Return a part of the workspace, in C order."""
        dtype = np.dtype(dtype)
        strides = contiguous(shape, dtype.itemsize)
        self.parts.append(ArrayRef(~len(self.parts), shape, strides, dtype))
        return self.parts[-1]

    def copy(self, source: ArrayRef, target: ArrayRef) -> None:
        """Add a copy, by other means than a kernel of this package."""
        self.steps.append(Copy(source, target))

    def fill(self, target: ArrayRef) -> None:
        """Add zeros, by other means than a kernel of this package."""
        self.steps.append(Fill(target))

    def compact(self, array: ArrayRef) -> ArrayRef:
        """Return a copy of an array in contiguous, aligned memory."""
        copied = self.empty(array.shape, array.dtype)
        self.copy(array, copied)
        return copied

    def rows(self, array: ArrayRef, *, read: bool = True) -> ArrayRef:
        """Flatten leading dimensions, (..., m) -> (n, m), by a copy where strides do not allow it.

        What is not read is not copied: memory of that shape for a result.
        """
        if array.ndim == 2:
            return array
        shape = (math.prod(array.shape[:-1]), array.shape[-1])
        step = row_step(array)
        if step is not None:
            return array.view(shape, (step, array.strides[-1]))
        copied = self.compact(array) if read else self.empty(array.shape, array.dtype)
        return copied.view(shape, contiguous(shape, array.dtype.itemsize))


def program_of(
    plan: Plan,
    inputs: Mapping[str, ArrayRef | None],
    outputs: Mapping[str, ArrayRef],
    accumulate: Collection[str],
    sm_count: int,
) -> Program:
    """Compute what an operation launches.

    Parameters
    ----------
    plan : Plan
    inputs : dict
        The operands in the order of the operation's arguments; None for those that are not read.
    outputs : dict
        The results that are wanted.
    accumulate : collection of str
        The results that are added to what is there.
    sm_count : int
        Multiprocessors of the device.
    """
    operation, launches = OPERATIONS[plan.op], Launches(sm_count)

    def rows(name: str, one: ArrayRef, *, read: bool) -> ArrayRef:
        return launches.rows(one, read=read) if operation.is_flattened(name) else one

    near = {
        name: None if one is None else rows(name, one, read=True) for name, one in inputs.items()
    }
    results = {name: rows(name, one, read=name in accumulate) for name, one in outputs.items()}
    compute = getattr(import_module(f"gpugrad.gpu.{plan.op}"), plan.op)
    compute(launches, plan, **near, **results, accumulate=tuple(accumulate))
    for name, one in outputs.items():
        if results[name].place != one.place:
            strides = contiguous(one.shape, one.dtype.itemsize)
            launches.copy(results[name].view(one.shape, strides), one)
    return launches.program()


def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of an array in C order."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def row_step(array: ArrayRef) -> int | None:
    """Return the stride from one row (..., m) to the next; None where it differs among them."""
    leading = [
        (extent, stride)
        for extent, stride in zip(array.shape[:-1], array.strides[:-1], strict=True)
        if extent != 1
    ]
    if array.size == 0 or not leading:
        return array.strides[-1] * array.shape[-1]
    nested = all(one[1] == then[0] * then[1] for one, then in pairwise(leading))
    return leading[-1][1] if nested else None
