"""Calls bound to a CUDA device: kernels loaded, parameters laid out, for any addresses.

Looked at in each call, and nothing else: the current device, the current stream, whether that is
captured (gpu/memory.py), and whether the caller's buffers overlap anything.
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
WIDE = 128  # the alignment of larger arguments: a tensor map's, the strictest there is

# What the driver takes of a launch before the stream: function, grid, block, shared memory.
Head = tuple[int, int, int, int, int, int, int, int]
Extents = tuple[tuple[int, int], ...]
New = tuple[int, tuple[int, ...], Any, str]  # place among the results, shape, dtype, order


class _Thread(threading.local):
    """The devices whose context CUDA's runtime has made current for a thread."""

    def __init__(self) -> None:
        self.devices: set[int] = set()


thread = _Thread()


class BoundProgram:
    """A program whose kernels are loaded.

    Parameters
    ----------
    program : Program
    arrays : int
        How many the call has.
    kernels : sequence of int
        The driver's function of each launch.
    """

    def __init__(self, program: Program, arrays: int, kernels: Sequence[int]) -> None:
        self.arrays, self.offsets = arrays, program.offsets[:-1]
        self.workspace = program.offsets[-1]
        self._steps = program.steps
        self._launches = [step for step in program.steps if isinstance(step, Launch)]
        self._only_launches = len(self._launches) == len(self._steps)
        self._heads = tuple(map(_head, self._launches, kernels))
        self._frames: list[_Frame] = []  # those that no call uses; pop and append are atomic

    def __call__(self, arrays: Sequence[Any]) -> None:
        """Run it on CuPy arrays of the current device, on CuPy's current stream."""
        memory = CupyMemory()
        addresses, stream = [one.data.ptr for one in arrays], memory.stream()
        make_context_current(cuda.runtime.getDevice())
        holder = None
        if self.workspace:
            holder, first = memory.workspace(self.workspace, stream)
            addresses += [first + offset for offset in self.offsets]
        self.run(addresses, stream)
        del holder  # back to the pool, in the stream's order

    def run(self, addresses: Sequence[int], stream: int) -> None:
        """Run it at the addresses of the call's arrays and of the workspace's parts."""
        try:
            frame = self._frames.pop()
        except IndexError:  # the first call, or each frame is another thread's
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
                    self._move(step, addresses, stream)
        self._frames.append(frame)

    def _move(self, step: Copy | Fill, addresses: Sequence[int], stream: int) -> None:
        """Copy or fill by CuPy."""

        def array(ref: ArrayRef) -> Any:
            place = ref.place if ref.place >= 0 else self.arrays + ~ref.place
            kind = f"u{ref.dtype.itemsize}"  # CuPy copies bfloat16 in some versions alone
            memory = cuda.UnownedMemory(addresses[place], ref.nbytes, None)
            return cupy.ndarray(ref.shape, kind, cuda.MemoryPointer(memory, 0), ref.strides)

        if step.target.size == 0:
            return
        with on_stream(stream):
            if isinstance(step, Copy):
                array(step.target)[...] = array(step.source)
            else:
                array(step.target).fill(0)


class GpuCall:
    """A call on arrays of a device, for all arrays of one signature.

    Parameters
    ----------
    op : str
    device : int
    program : BoundProgram
    memory : CupyMemory or TorchMemory
    new : tuple
        The results to allocate.
    count : int
        How many results there are, wanted or not.
    extents : tuple of (int, int)
        From the address of each operand and buffer to its first byte and beyond its last, for all
        that have one address together; (0, 0) for the later ones of these.
    finish : function or None
        Makes a result an array of the caller's kind, where it is not one already.
    written : function or None
        Tells the arrays' framework that a buffer has been written.
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
        finish: Callable[[Any], Any] | None = None,
        written: Callable[[Any], None] | None = None,
    ) -> None:
        self.op, self.device, self.program, self.memory = op, device, program, memory
        self.new, self.count, self.extents = new, count, extents
        self.finish, self.written = finish, written

    def __call__(
        self, addresses: list[int], given: Sequence[Any] | None, held: Sequence[Any] = ()
    ) -> list[Any] | None:
        """Compute as `compute` does; None where buffers may overlap something."""
        if given is not None and self._overlap(addresses):
            return None
        return self.compute(addresses, given, held)

    def compute(
        self, addresses: list[int], given: Sequence[Any] | None, held: Sequence[Any] = ()
    ) -> list[Any]:
        """Allocate results and workspace, and launch.

        Parameters
        ----------
        addresses : list of int
            Of operands and buffers; it is used up.
        given : sequence or None
            The caller's buffers, None for each result that is to be allocated.
        held : sequence
            Operands of JAX's, whose memory must not be given to others before they are read.
        """
        if cuda.runtime.getDevice() != self.device:
            with cuda.Device(self.device):
                return self.compute(addresses, given, held)
        if self.device not in thread.devices:
            make_context_current(self.device)
        results: list[Any] = [None] * self.count if given is None else [*given]
        memory, program = self.memory, self.program
        stream = memory.stream()
        for place, shape, dtype, order in self.new:
            results[place], at = memory.result(shape, dtype, order)
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
        del holder  # back to its allocator, in the stream's order
        if held:
            hold_until_done(one for one in held if one is not None)
        if given is not None and self.written is not None:
            for one in given:
                if one is not None:
                    self.written(one)
        if self.finish is not None:
            for place, *_ in self.new:
                results[place] = self.finish(results[place])
        return results

    def _overlap(self, addresses: Sequence[int]) -> bool:
        """Return whether any operands and buffers may share memory, but those of one address.

        That those do is in the signature, and a call of this signature was right.
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
    """Return the extents of arrays, those of the same address in the first one's place."""
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
    """Have CUDA's runtime make the current device's context current for this thread."""
    cuda.runtime.memGetInfo()  # what CuPy itself calls for that
    thread.devices.add(device)


def _head(launch: Launch, kernel: int) -> Head:
    (gx, gy, gz), (bx, by, bz) = ((*one, 1, 1)[:3] for one in (launch.grid, launch.block))
    return kernel, gx, gy, gz, bx, by, bz, launch.shared_bytes


class _Encoded:
    """A tensor map among the parameters, and the address for which it is there.

    Of a call like the one before, on the same memory, nothing is to be done: that saves 0.5 µs for
    each of the four tensor maps of a layer.
    """

    __slots__ = ("box", "layout", "place", "start", "swizzle", "where")

    def __init__(self, start: int, place: int, argument: TensorMap) -> None:
        self.start, self.place = start, place
        self.layout: Layout = layout(argument.array)
        self.box, self.swizzle = argument.box, argument.swizzle
        self.where: int | None = None


class _Frame:
    """The parameters of all launches of a call as the driver reads them, for one call at a time.

    The driver has read them when a launch returns, also of a launch that a graph captures.

    Attributes
    ----------
    calls : tuple of (Head, int)
        For each launch its head, and the address of its parameters.
    """

    def __init__(
        self, launches: Sequence[Launch], heads: Sequence[Head], arrays: int, parts: int
    ) -> None:
        def slot(ref: ArrayRef) -> int:
            return ref.place if ref.place >= 0 else arrays + ~ref.place

        end = WORD * (arrays + parts)
        starts: list[list[int]] = []
        constants: list[tuple[int, bytes]] = []
        self._encoded: list[_Encoded] = []
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
                elif one.array.size:  # else it is blank
                    self._encoded.append(_Encoded(start, slot(one.array), one))
        self._memory = ctypes.create_string_buffer(end + WIDE)
        self._base = -(-ctypes.addressof(self._memory) // WIDE) * WIDE
        for start, value in constants:
            ctypes.memmove(self._base + start, value, len(value))
        self._parameters = [
            (ctypes.c_void_p * len(one))(*(self._base + start for start in one)) for one in starts
        ]
        self.calls = tuple(zip(heads, map(ctypes.addressof, self._parameters), strict=True))
        # One call of C for all addresses: a third of what a loop over them takes.
        self._addresses: Callable[..., Any] = functools.partial(
            struct.Struct(f"={arrays + parts}Q").pack_into,
            self._memory,
            self._base - ctypes.addressof(self._memory),
        )

    def insert(self, addresses: Sequence[int]) -> None:
        """Put in the addresses of a call."""
        self._addresses(*addresses)
        for one in self._encoded:
            where = addresses[one.place]
            if where != one.where:
                value = encode(one.layout, one.box, one.swizzle, where)
                ctypes.memmove(self._base + one.start, value, BYTES)
                one.where = where


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: thread.devices.clear())
