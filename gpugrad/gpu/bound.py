"""Bound calls on a CUDA device: loaded kernels and parameter buffers, for arrays at any address.

Each call checks the current device, the current stream, whether that is being captured
(gpu/memory.py) and whether buffers overlap; nothing else.
"""

import ctypes
import functools
import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cupy
from cupy import cuda

from gpugrad.arrays.kinds import hold_until_done, on_stream
from gpugrad.gpu.launches import ArrayRef, Copy, Fill, Launch, Program, TensorMap
from gpugrad.gpu.memory import CupyMemory, TorchMemory
from gpugrad.gpu.tensor_maps import BYTES, Layout, encode, layout

WORD = 8  # bytes of an address, and the alignment of scalars
WIDE = 128  # alignment of larger arguments: that of a tensor map

# Arguments of cuLaunchKernel before the stream: function, grid, block, shared memory.
Head = tuple[int, int, int, int, int, int, int, int]
Extents = tuple[tuple[int, int], ...]
New = tuple[int, tuple[int, ...], Any, str]  # index among the results, shape, dtype, order


class _Thread(threading.local):
    """The devices whose context was current in a thread."""

    def __init__(self) -> None:
        self.devices: set[int] = set()


thread = _Thread()


class BoundProgram:
    """A program with its kernels loaded.

    Parameters
    ----------
    program : Program
    arrays : int
        Number of arrays of the call.
    kernels : sequence of int
        CUfunction of each launch.
    """

    def __init__(self, program: Program, arrays: int, kernels: Sequence[int]) -> None:
        self.arrays, self.offsets = arrays, program.offsets[:-1]
        self.workspace = program.offsets[-1]
        self._steps = program.steps
        self._launches = [step for step in program.steps if isinstance(step, Launch)]
        self._only_launches = len(self._launches) == len(self._steps)
        self._heads = tuple(map(_head, self._launches, kernels))
        self._frames: list[_Frame] = []  # not in use; pop and append are atomic

    def __call__(self, arrays: Sequence[Any]) -> None:
        """Run the program on CuPy arrays of the current device, on CuPy's current stream."""
        memory = CupyMemory()
        addresses, stream = [one.data.ptr for one in arrays], memory.stream()
        make_context_current(cuda.runtime.getDevice())
        holder = None
        if self.workspace:
            holder, first = memory.workspace(self.workspace, stream)
            addresses += [first + offset for offset in self.offsets]
        self.run(addresses, stream)
        del holder  # returned to the pool, in stream order

    def run(self, addresses: Sequence[int], stream: int) -> None:
        """Run the program at the addresses of its arrays and of the workspace's parts."""
        try:
            frame = self._frames.pop()
        except IndexError:  # the first call, or all frames are in use
            frame = _Frame(self._launches, self._heads, self.arrays, len(self.offsets))
        frame.insert(addresses)
        launch = cuda.driver.launchKernel
        if self._only_launches:
            for head, parameters in frame.calls:
                launch(*head, stream, parameters, 0)
        else:
            calls = iter(frame.calls)
            for step in self._steps:
                if isinstance(step, Launch):
                    head, parameters = next(calls)
                    launch(*head, stream, parameters, 0)
                else:
                    self._copy_or_fill(step, addresses, stream)
        self._frames.append(frame)

    def _copy_or_fill(self, step: Copy | Fill, addresses: Sequence[int], stream: int) -> None:
        """Copy or fill an array with CuPy."""

        def array(ref: ArrayRef) -> Any:
            index = ref.index if ref.index >= 0 else self.arrays + ~ref.index
            kind = f"u{ref.dtype.itemsize}"  # some versions of CuPy cannot copy bfloat16
            memory = cuda.UnownedMemory(addresses[index], ref.nbytes, None)
            return cupy.ndarray(ref.shape, kind, cuda.MemoryPointer(memory, 0), ref.strides)

        if step.target.size == 0:
            return
        with on_stream(stream):
            if isinstance(step, Copy):
                array(step.target)[...] = array(step.source)
            else:
                array(step.target).fill(0)


class GpuCall:
    """A bound call on arrays of a GPU, for all arrays of one signature.

    Parameters
    ----------
    op : str
    device : int
    program : BoundProgram
    memory : CupyMemory or TorchMemory
    new : tuple
        The results to allocate.
    count : int
        Number of results, wanted or not.
    extents : tuple of (int, int)
        Byte range of each operand and buffer, relative to its address. Arrays with the same address
        share one range, at the first of them; the others have (0, 0).
    wrap : function or None
        Converts a result to the caller's kind.
    mark_written : function or None
        Records in the arrays' framework that a buffer was written.
    """

    def __init__(
        self,
        op: str,
        device: int,
        program: BoundProgram,
        memory: CupyMemory | TorchMemory,
        new: tuple[New, ...],
        count: int,
        extents: Extents,
        *,
        wrap: Callable[[Any], Any] | None = None,
        mark_written: Callable[[Any], None] | None = None,
    ) -> None:
        self.op, self.device, self.program, self.memory = op, device, program, memory
        self.new, self.count, self.extents = new, count, extents
        self.wrap, self.mark_written = wrap, mark_written

    def __call__(
        self, addresses: list[int], given: Sequence[Any] | None, held: Sequence[Any] = ()
    ) -> list[Any] | None:
        """Compute as `compute` does; return None if a buffer may overlap another array."""
        if given is not None and self._overlap(addresses):
            return None
        return self.compute(addresses, given, held)

    def compute(
        self, addresses: list[int], given: Sequence[Any] | None, held: Sequence[Any] = ()
    ) -> list[Any]:
        """Allocate results and workspace, then launch.

        Parameters
        ----------
        addresses : list of int
            Addresses of operands and buffers; results are appended.
        given : sequence or None
            The caller's buffers; None for each result to allocate.
        held : sequence
            JAX's operands, whose memory must not be reused before kernels have read them.
        """
        if cuda.runtime.getDevice() != self.device:
            with cuda.Device(self.device):
                return self.compute(addresses, given, held)
        if self.device not in thread.devices:
            make_context_current(self.device)
        results: list[Any] = [None] * self.count if given is None else [*given]
        memory, program = self.memory, self.program
        stream = memory.stream()
        for index, shape, dtype, order in self.new:
            results[index], at = memory.result(shape, dtype, order)
            addresses.append(at)
        holder = None
        if program.workspace:
            holder, at = memory.workspace(program.workspace, stream)
            addresses += [at + offset for offset in program.offsets]
        try:
            program.run(addresses, stream)
        except BaseException as error:
            if given is not None:
                error.add_note(f"{self.op}: out may have been written in part")
            raise
        del holder  # returned to its allocator, in stream order
        if held:
            hold_until_done(one for one in held if one is not None)
        if given is not None and self.mark_written is not None:
            for one in given:
                if one is not None:
                    self.mark_written(one)
        if self.wrap is not None:
            for index, *_ in self.new:
                results[index] = self.wrap(results[index])
        return results

    def _overlap(self, addresses: Sequence[int]) -> bool:
        """Return whether operands and buffers at different addresses may share memory.

        Equal addresses are part of the signature, and were checked by its first call.
        """
        ranges = sorted(
            [(at + low, at + high) for at, (low, high) in zip(addresses, self.extents, strict=True)]
        )
        last = 0
        for first, end in ranges:
            if first < last and first < end:
                return True
            last = max(last, end)
        return False


def extents_of(arrays: Sequence[Any], addresses: Sequence[int]) -> Extents:
    """Return the byte ranges of arrays relative to their addresses; see `GpuCall`."""
    found: dict[int, tuple[int, int]] = {}
    for one, where in zip(arrays, addresses, strict=True):
        if one.size == 0:
            continue
        reach = [step * (extent - 1) for step, extent in zip(one.strides, one.shape, strict=True)]
        low, high = found.get(where, (0, 0))
        found[where] = (
            min(low, sum(step for step in reach if step < 0)),
            max(high, sum(step for step in reach if step > 0) + one.dtype.itemsize),
        )
    return tuple(found.pop(where, (0, 0)) for where in addresses)


def make_context_current(device: int) -> None:
    """Make the context of the current device current in this thread, and record it."""
    cuda.runtime.memGetInfo()  # any call of the runtime does; CuPy uses this one
    thread.devices.add(device)


def _head(launch: Launch, kernel: int) -> Head:
    (gx, gy, gz), (bx, by, bz) = ((*one, 1, 1)[:3] for one in (launch.grid, launch.block))
    return kernel, gx, gy, gz, bx, by, bz, launch.shared_bytes


class _MapSlot:
    """A tensor map in the parameter buffer, and the address that it was encoded for.

    A call at the same address reuses it, which saves 0.5 µs for each of a layer's four tensor maps.
    """

    __slots__ = ("box", "index", "layout", "start", "swizzle", "where")

    def __init__(self, start: int, index: int, argument: TensorMap) -> None:
        self.start, self.index = start, index
        self.layout: Layout = layout(argument.array)
        self.box, self.swizzle = argument.box, argument.swizzle
        self.where: int | None = None


class _Frame:
    """The kernel parameters of all launches of a call, for one call at a time.

    A launch copies its parameters before it returns, also while a graph is captured.

    Attributes
    ----------
    calls : tuple of (Head, int)
        Head of each launch and address of its parameters.
    """

    def __init__(
        self, launches: Sequence[Launch], heads: Sequence[Head], arrays: int, parts: int
    ) -> None:
        def slot(ref: ArrayRef) -> int:
            return ref.index if ref.index >= 0 else arrays + ~ref.index

        end = WORD * (arrays + parts)
        starts: list[list[int]] = []
        constants: list[tuple[int, bytes]] = []
        self._encoded: list[_MapSlot] = []
        for launch in launches:
            starts.append([])
            for one in launch.args:
                if isinstance(one, ArrayRef):
                    starts[-1].append(WORD * slot(one))
                    continue
                is_map = isinstance(one, TensorMap)
                size, alignment = (BYTES, WIDE) if is_map else (one.nbytes, WORD)
                start = -(-end // alignment) * alignment
                end = start + size
                starts[-1].append(start)
                if not is_map:
                    constants.append((start, one.tobytes()))
                elif one.array.size:  # else it stays blank
                    self._encoded.append(_MapSlot(start, slot(one.array), one))
        self._memory = ctypes.create_string_buffer(end + WIDE)
        self._base = -(-ctypes.addressof(self._memory) // WIDE) * WIDE
        for start, value in constants:
            ctypes.memmove(self._base + start, value, len(value))
        self._parameters = [
            (ctypes.c_void_p * len(one))(*(self._base + start for start in one)) for one in starts
        ]
        self.calls = tuple(zip(heads, map(ctypes.addressof, self._parameters), strict=True))
        # One C call for all addresses takes a third of the time of a loop.
        self._addresses: Callable[..., Any] = functools.partial(
            struct.Struct(f"={arrays + parts}Q").pack_into,
            self._memory,
            self._base - ctypes.addressof(self._memory),
        )

    def insert(self, addresses: Sequence[int]) -> None:
        """Write the addresses of a call into the parameters."""
        self._addresses(*addresses)
        for one in self._encoded:
            where = addresses[one.index]
            if where != one.where:
                value = encode(one.layout, one.box, one.swizzle, where)
                ctypes.memmove(self._base + one.start, value, BYTES)
                one.where = where


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: thread.devices.clear())
