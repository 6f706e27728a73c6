"""Workspaces of calls that a CUDA graph captures.

A workspace goes back to CuPy's pool when the call that used it has been launched. The pool knows
streams: only what is launched on the same stream later can have its memory. But a graph writes to
its workspaces whenever it is replayed, on any stream, and nobody tells when it is destroyed. So
memory that a captured call uses besides its results is never given back.

Repeated calls that one thread launches on one stream in one capture run in their order in every
replay: they have the same workspace. Without that, a graph of a network would hold the workspaces
of all its layers at once.
"""

import threading
from typing import Any

from cupy import cuda

NEVER_CAPTURED = (0, 1)  # the legacy default stream, by either of its names

of_graphs: dict[Any, list[tuple[int, Any]]] = {}  # bytes and memory, by capture, stream and thread


def workspace(size: int, stream: int) -> Any:
    """Allocate the workspace of a repeated call on the current device."""
    if stream in NEVER_CAPTURED or not cuda.runtime.streamIsCapturing(stream):
        return cuda.alloc(size)
    number = _capture(stream)
    kept = of_graphs.setdefault((number, stream, threading.get_ident()), [])
    for known, memory in kept:
        if known >= size and number is not None:
            return memory
    memory = cuda.alloc(size)
    kept.append((size, memory))
    return memory


def keep_if_captured(memory: Any, stream: int) -> None:
    """Keep memory for good, for nobody else, if what is launched on a stream goes to a graph.

    Memory of PyTorch's belongs to its allocator, which looks after its graphs itself.
    """
    if getattr(memory.mem, "allocator_knows_graphs", False):
        return
    if stream not in NEVER_CAPTURED and cuda.runtime.streamIsCapturing(stream):
        of_graphs.setdefault(None, []).append((0, memory))


def _capture(stream: int) -> int | None:
    """Give the number of a stream's capture, of which a process never has two; None if unknown."""
    from cuda.bindings import driver

    status, _, number, *_ = driver.cuStreamGetCaptureInfo(driver.CUstream(stream))
    return None if status else int(number)
