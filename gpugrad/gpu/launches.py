"""The program of a call: kernel launches, copies, and the workspace.

An operation builds a `Program` from its plan and the layouts of its arrays. This needs neither
memory nor a GPU: programs can be built and tested on any machine.
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

WORKSPACE_ALIGNMENT = 512  # bytes, of each part, as in CuPy's pool
MISALIGNED = 15  # bits of an address that are not 0 if 16-byte accesses are impossible


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """An array of a call without its data: its index and layout.

    Attributes
    ----------
    index : int
        Among the arrays of the call, from 0 upwards; among the parts of the workspace, from -1
        downwards.
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    misalignment : int
        The address modulo 16.
    """

    index: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    misalignment: int = 0

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Total bytes of the elements."""
        return self.size * int(self.dtype.itemsize)

    @property
    def T(self) -> "ArrayRef":  # noqa: N802  (as NumPy calls it)
        """The transposed array."""
        return self.view(self.shape[::-1], self.strides[::-1])

    def view(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> "ArrayRef":
        """Return a view of the same memory with another shape and strides."""
        return replace(self, shape=shape, strides=strides)


def ref_of(index: int, array: Any) -> ArrayRef:
    """Return the reference to an array of the call."""
    where = address(array) & MISALIGNED
    return ArrayRef(index, tuple(array.shape), tuple(array.strides), array.dtype, where)


def new_ref(index: int, shape: tuple[int, ...], dtype: Any, order: str) -> ArrayRef:
    """Return the reference to an array to allocate, in memory order "C" or "F"."""
    if order == "F":
        return new_ref(index, shape[::-1], dtype, "C").T
    return ArrayRef(index, shape, contiguous(shape, dtype.itemsize), dtype)


class TensorMap(NamedTuple):
    """A kernel argument: the descriptor by which TMA copies boxes of an array.

    The axes of the box are those of the array; the swizzle is in bytes. The descriptor of an empty
    array is blank.
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
    grid, block : tuple of int
    args : tuple of ArrayRef, TensorMap or NumPy scalar
    shared_bytes : int
        Dynamic shared memory.
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
    """A copy between two arrays of one shape and any strides."""

    source: ArrayRef
    target: ArrayRef

    def __str__(self) -> str:
        return f"copy {'×'.join(map(str, self.source.shape))} {self.source.dtype.name}"


class Fill(NamedTuple):
    """An array set to zero."""

    target: ArrayRef

    def __str__(self) -> str:
        return f"zeros {'×'.join(map(str, self.target.shape))}"


Step = Launch | Copy | Fill


class Program(NamedTuple):
    """The work of a call on the device, in order.

    Attributes
    ----------
    steps : tuple
    parts : tuple of ArrayRef
        The parts of the workspace.
    """

    steps: tuple[Step, ...]
    parts: tuple[ArrayRef, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets of the parts in the workspace, and its size, in bytes.

        An empty part has some bytes too, so that its address is within the workspace.
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
    """A builder of programs.

    Attributes
    ----------
    sm_count : int
        Multiprocessors of the device, for the grids of persistent kernels.
    """

    sm_count: int
    steps: list[Step] = field(default_factory=list)
    parts: list[ArrayRef] = field(default_factory=list)

    def program(self) -> Program:
        """Return the program built so far."""
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
            Macros besides those of the configuration.
        configuration : Configuration
        grid, args : tuple
        block : tuple of int, optional
            By default that of the configuration.
        """
        macros, block = (*chosen, *configuration.macros), block or configuration.block
        shared = configuration.shared_bytes
        self.steps.append(Launch(stem, function, macros, grid, block, args, shared))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ArrayRef:
        """Allocate a part of the workspace, in C order."""
        dtype = np.dtype(dtype)
        strides = contiguous(shape, dtype.itemsize)
        self.parts.append(ArrayRef(~len(self.parts), shape, strides, dtype))
        return self.parts[-1]

    def copy(self, source: ArrayRef, target: ArrayRef) -> None:
        """Add a copy by CuPy."""
        self.steps.append(Copy(source, target))

    def fill(self, target: ArrayRef) -> None:
        """Add a fill with zeros by CuPy."""
        self.steps.append(Fill(target))

    def compact(self, array: ArrayRef) -> ArrayRef:
        """Return a copy of an array in contiguous, aligned memory."""
        copied = self.empty(array.shape, array.dtype)
        self.copy(array, copied)
        return copied

    def rows(self, array: ArrayRef, *, read: bool = True) -> ArrayRef:
        """Flatten leading dimensions, (..., m) -> (n, m), by a copy if strides require it.

        A result that is not read is not copied; it gets memory of that shape.
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
    """Return the program of a call.

    Parameters
    ----------
    plan : Plan
    inputs : dict
        The operands in the order of the operation's arguments; None for those not read.
    outputs : dict
        The wanted results.
    accumulate : collection of str
        The results that are added to their buffers.
    sm_count : int
        Multiprocessors of the device.
    """
    operation, launches = OPERATIONS[plan.op], Launches(sm_count)

    def rows(name: str, one: ArrayRef, *, read: bool) -> ArrayRef:
        return launches.rows(one, read=read) if operation.is_flattened(name) else one

    operands = {
        name: None if one is None else rows(name, one, read=True) for name, one in inputs.items()
    }
    results = {name: rows(name, one, read=name in accumulate) for name, one in outputs.items()}
    compute = getattr(import_module(f"gpugrad.gpu.{plan.op}"), plan.op)
    compute(launches, plan, **operands, **results, accumulate=tuple(accumulate))
    for name, one in outputs.items():
        if results[name].index != one.index:
            strides = contiguous(one.shape, one.dtype.itemsize)
            launches.copy(results[name].view(one.shape, strides), one)
    return launches.program()


def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides in bytes of an array in C order."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def row_step(array: ArrayRef) -> int | None:
    """Return the stride between the rows of (..., m); None if it is not uniform."""
    leading = [
        (extent, stride)
        for extent, stride in zip(array.shape[:-1], array.strides[:-1], strict=True)
        if extent != 1
    ]
    if array.size == 0 or not leading:
        return array.strides[-1] * array.shape[-1]
    nested = all(one[1] == then[0] * then[1] for one, then in pairwise(leading))
    return leading[-1][1] if nested else None
