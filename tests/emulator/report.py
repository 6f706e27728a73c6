"""What went wrong where: the words for a failed launch."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import build, toolchain
from .arguments import Group
from .structures import ARGUMENT, DYNAMIC_SHARED, ELSEWHERE, STATIC_SHARED, Failure

if TYPE_CHECKING:
    from .module import Module


def describe(failure: Failure, module: "Module", groups: list[Group]) -> str:
    """Return the message, memory, source lines, block and thread of a failure."""
    text = re.sub(
        r"\{shared (\d+)\}",
        lambda offset: module.describe_shared(int(offset[1])),
        failure.message.decode(errors="replace"),
    )
    place = describe_place(failure, module, groups)
    if place:
        text += f": {place}"
    if failure.site_line:
        text += f" at {failure.site_file.decode()}:{failure.site_line}"
    if failure.pc:
        text += describe_line(" at ", module, failure.pc)
    if failure.other_pc:
        text += describe_line("; the earlier access is at ", module, failure.other_pc)
    return f"{text} [block {tuple(failure.block)}, thread {tuple(failure.thread)}"


def describe_place(failure: Failure, module: "Module", groups: list[Group]) -> str:
    """Return the memory that a failure is about."""
    if failure.place == DYNAMIC_SHARED:
        return f"dynamic shared memory, byte {failure.offset}"
    if failure.place == STATIC_SHARED:
        return module.describe_shared(failure.offset)
    if failure.place == ARGUMENT:
        return describe_element(groups[failure.buffer], failure.offset)
    if failure.place == ELSEWHERE:
        return f"address {failure.offset & (2**64 - 1):#x}, near no argument"
    return ""


def describe_line(prefix: str, module: "Module", pc: int) -> str:
    """Return the line of a kernel source, and the one that it is inlined at; or nothing."""
    own = [
        f"{Path(file).name}:{line}"
        for file, line in toolchain.source_lines(module.path, pc)
        if Path(file).parent not in (build.DEVICE, *toolchain.cuda_include_folders())
    ]
    return prefix + ", inlined at ".join(own[:2]) if own else ""


def describe_element(group: Group, offset: int) -> str:
    """Return the argument and element of the byte `offset` of a group, or the nearest."""
    address = group.low + offset
    inside = [extent for extent in group.extents if extent.low <= address < extent.high]
    extent = (inside or group.extents)[0]
    array = extent.array
    start = address - array.ctypes.data
    text = f"{extent.parameter}, byte {start} of {array.nbytes}"
    index = element_index(array, start) if inside else None
    if index is not None:
        text = f"{extent.parameter}, element [{', '.join(map(str, index))}], byte {start}"
    return f"{text} (shape {array.shape}, {array.dtype})"


def element_index(array: np.ndarray, start: int) -> tuple[int, ...] | None:
    """Return the index of the element that holds a byte, counted from the first; or None."""
    index = [0] * array.ndim
    left = start - sum(
        (extent - 1) * stride
        for extent, stride in zip(array.shape, array.strides, strict=True)
        if stride < 0
    )  # from the lowest element
    for axis in sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])):
        stride = array.strides[axis]
        if stride == 0:
            continue
        steps = min(left // abs(stride), array.shape[axis] - 1)
        left -= steps * abs(stride)
        index[axis] = steps if stride > 0 else array.shape[axis] - 1 - steps
    return tuple(index) if 0 <= left < array.itemsize else None
