"""Calls on CuPy arrays like one that went before: its launches again, with other addresses.

What a call checks and plans follows from its options and from shapes, strides, dtypes and the last
bits of addresses. So a call that was right leaves a recipe for the calls that are like it in all of
these. What else may differ is looked at each time: the current device and stream, whether a graph
is being captured, and whether the caller's buffers overlap anything.

A call that no recipe serves goes the ordinary way. So does the first one of each thread, in which
CuPy makes CUDA's context current.
"""

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cupy
from cupy import cuda

from gpugrad import _repeats
from gpugrad._repeats import NOTHING, Found, Key
from gpugrad.arrays.call import address, order_of
from gpugrad.gpu import captures
from gpugrad.gpu.cupy_runtime import head_of
from gpugrad.gpu.frame import Frame, Head
from gpugrad.gpu.recording import Recorder, Template

MISALIGNED = 15  # the bits of an address that decide whether 16 bytes can be moved at once


class _Thread(threading.local):
    """What a thread knows: the devices on which CuPy has launched kernels for it."""

    def __init__(self) -> None:
        self.devices: set[int] = set()


_thread = _Thread()


class Recipe:
    """How calls of one kind are launched.

    Parameters
    ----------
    op : str
    template : Template
    heads : sequence of tuple
        What the driver takes of each launch before the stream.
    results : int
        How many a call has, wanted or not.
    given : bool
        Whether the caller has given buffers for some.
    new : tuple of (int, tuple)
        Those to allocate, by place, with the arguments of `cupy.ndarray`.
    extents : tuple of (int, int)
        From the address of each operand and buffer to its first byte and beyond its last, for all
        that have one address together; (0, 0) for the later ones of these.
    """

    def __init__(
        self,
        op: str,
        template: Template,
        heads: Sequence[Head],
        results: int,
        given: bool,
        new: tuple[tuple[int, tuple[Any, ...]], ...],
        extents: tuple[tuple[int, int], ...],
    ) -> None:
        self.op, self.template, self.heads = op, template, heads
        self.results, self.given, self.new, self.extents = results, given, new, extents
        self.frames: list[Frame] = []  # those that no call uses; pop and append are atomic

    def overlap(self, addresses: Sequence[int]) -> bool:
        """Say whether any operands and buffers may share memory, but those of one address.

        Of those the key knows that they do, and a call with this key was right.
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

    def ready(self, out: Any, addresses: list[int]) -> Callable[..., list[Any]] | None:
        """Allocate what a call needs; None where memory is not aligned, by an allocator not CuPy's.

        Parameters
        ----------
        out
            The call's.
        addresses : list of int
            Of its operands and buffers; the others are added.
        """
        if out is None:
            results: list[Any] = [None] * self.results
        else:
            results = list(out) if isinstance(out, tuple) else [out]
        bits = 0
        for place, arguments in self.new:
            array = results[place] = cupy.ndarray(*arguments)
            at = array.data.ptr
            bits |= at
            addresses.append(at)
        stream, workspace = cuda.get_current_stream().ptr, None
        if self.template.workspace:
            workspace = captures.workspace(self.template.workspace, stream)
            at = workspace.ptr
            bits |= at
            addresses += [at + offset for offset in self.template.parts]
        if bits & MISALIGNED:
            return None
        return functools.partial(self.launch, addresses, results, stream, workspace)

    def launch(
        self,
        addresses: list[int],
        results: list[Any],
        stream: int,
        workspace: Any,
        *_: Any,
    ) -> list[Any]:
        """Launch a call's kernels and give its results; its operands are not needed any more.

        The workspace is given back to CuPy's pool on return, in the stream's order.
        """
        try:
            frame = self.frames.pop()
        except IndexError:  # the first call, or each frame is another thread's
            frame = Frame(self.template, self.heads)
        frame.insert(addresses)
        launch = cuda.driver.launchKernel
        try:
            for head, parameters in frame.calls:
                launch(*head, stream, parameters, 0)
        except BaseException as error:
            if self.given:
                error.add_note(f"{self.op}: out may have been written in part")
            raise
        self.frames.append(frame)
        return results


def find(
    op: str, options: tuple[Any, ...], out: Any, accumulate: Any, arrays: tuple[Any, ...]
) -> Found:
    """Find the recipe for a call: the call's key, and what launches it where there is a recipe."""
    if type(arrays[0]) is not cupy.ndarray:
        return NOTHING
    device = cuda.runtime.getDevice()
    given: tuple[bool, ...] | None = None
    if out is not None:
        several = isinstance(out, tuple)
        buffers = out if several else (out,)
        given = (several, *[one is not None for one in buffers])
        arrays += buffers
    addresses: list[int] = []
    seen: list[Any] = []
    for one in arrays:
        if one is None:
            seen.append(None)
            continue
        if type(one) is not cupy.ndarray:
            return NOTHING
        data = one.data
        if data.device_id != device:
            return NOTHING
        at = data.ptr
        addresses.append(at)
        seen += (one.shape, one.strides, one.dtype, at & MISALIGNED)
    if len(set(addresses)) < len(addresses):  # the same memory twice: calls of a kind of their own
        seen.append(tuple(map(addresses.index, addresses)))
    if accumulate is not False and accumulate is not True:
        return NOTHING
    key = (op, options, accumulate, device, given, *seen)
    try:
        recipe = _repeats.recipes.get(key, _repeats.MOST)
    except TypeError:  # an option that has no hash
        return NOTHING
    if recipe is None or device not in _thread.devices:
        return key, None
    if given is not None and recipe.overlap(addresses):
        return NOTHING
    return key, recipe.ready(out, addresses)


def remember(
    key: Key,
    recorder: Recorder,
    arrays: Mapping[str, Any],
    results: Mapping[str, Any],
    shapes: Mapping[str, Any],
) -> None:
    """Keep the recipe of a call that has been launched, if it was nothing but launches.

    Parameters
    ----------
    key : tuple
        The call's, from `find`.
    recorder : Recorder
        Of the call's launches.
    arrays, results : dict
        Its operands and what it has written, in order and as they are, not as rows.
    shapes : dict
        The shapes of all results in order, also of those that were not wanted.
    """
    given = key[4] or ()
    assert isinstance(given, tuple)
    names = dict(enumerate(shapes))
    of_caller = [names[place] for place, one in enumerate(given[1:]) if one]
    new = {place: results[name] for place, name in names.items() if name in results}
    new = {place: one for place, one in new.items() if names[place] not in of_caller}
    known = [*arrays.values(), *(results[name] for name in of_caller)]
    if not _repeats.plain(key) or any(one.size == 0 for one in (*known, *new.values())):
        return
    addresses = [address(one) for one in (*known, *new.values())]
    template = recorder.template(addresses)
    if template is None:
        return
    recipe = Recipe(
        str(key[0]),
        template,
        tuple(head_of(*launch[:3]) for launch in template.launches),
        len(names),
        bool(of_caller),
        tuple(
            (place, (one.shape, one.dtype, None, None, order_of(one))) for place, one in new.items()
        ),
        _extents(known, addresses),
    )
    _repeats.recipes.keep(key, recipe, _repeats.MOST)
    device = key[3]
    assert isinstance(device, int)
    _thread.devices.add(device)


def _extents(arrays: Sequence[Any], addresses: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Give the extents of arrays, those of the same address in the first one's place."""
    found: dict[int, tuple[int, int]] = {}
    for one, where in zip(arrays, addresses, strict=False):
        reach = [step * (extent - 1) for step, extent in zip(one.strides, one.shape, strict=True)]
        low, high = found.get(where, (0, 0))
        found[where] = (
            min(low, sum(step for step in reach if step < 0)),
            max(high, sum(step for step in reach if step > 0) + one.dtype.itemsize),
        )
    return tuple(found.pop(where, (0, 0)) for where in addresses[: len(arrays)])


def _forget_in_child() -> None:
    """Drop what a forked process cannot use: its parent's CUDA context."""
    _repeats.forget()
    _thread.devices.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
