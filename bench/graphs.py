"""Calls captured in a CUDA graph, whose replay costs no Python: one graph over all sets."""

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.benchmark.timer import Candidate

MAX_CALLS = 256  # in a graph


def cupy_graph(name: str, calls: Sequence[Callable[[], Any]]) -> tuple[Candidate, list[Any]]:
    """Capture calls that launch on CuPy's current stream.

    Returns
    -------
    tuple
        The candidate, and the calls' results, which each replay writes anew. The workspaces
        of the calls stay in the pool of the capturing stream, which nothing else uses.
    """
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    kept = calls[:MAX_CALLS]
    with stream:
        kept[0]()  # compiles, and fills the pool
        stream.synchronize()
        stream.begin_capture()
        try:
            results = [call() for call in kept]
        finally:
            graph = stream.end_capture()

    def replay() -> Any:
        graph.launch(cupy.cuda.get_current_stream())
        return results, stream  # kept alive with the graph

    graph.upload(cupy.cuda.get_current_stream())
    return Candidate(name, replay, "gpu", operations=len(kept)), results


def pytorch_graph(name: str, calls: Sequence[Callable[[], Any]]) -> tuple[Candidate, list[Any]]:
    """Capture calls of PyTorch, after a warm-up on a stream beside the current one."""
    import torch

    kept = calls[:MAX_CALLS]
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for call in kept[:3]:
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call() for call in kept]

    def replay() -> Any:
        graph.replay()
        return results

    return Candidate(name, replay, "gpu", operations=len(kept)), results
