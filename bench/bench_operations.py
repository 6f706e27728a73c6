"""Wall times of every operation, by each library that is installed, on each device.

    python -m pytest bench/bench_operations.py -k "sigmoid_bias_backward and gpt2 and gpugrad"

`--benchmark-json bench/results/<name>.json` keeps the results with device, versions and commit.
On a GPU a time lasts until the results are there; times by events, with operands that no cache
holds, are bench/timings.py's.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from bench.conftest import ON_A_GPU, PEERS_HERE
from gpugrad.benchmark.peers import PEERS
from gpugrad.benchmark.sizes import PRESETS
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations

LAYERS = {name: PRESETS[name] for name in ("tiny", "digits", "mnist", "dlrm", "gpt2")} | {
    "x".join(map(str, size)): size  # of odd extents
    for size in ((127, 129, 128), (2053, 64, 10), (257, 131, 521))
}
CANDIDATES = ("gpugrad", *(["gpugrad-gpu"] if ON_A_GPU else []), *PEERS_HERE)


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op", OPERATIONS)
def test_operation(benchmark: Any, op: str, layer: str, dtype: str, candidate: str) -> None:
    """Time it."""
    size = LAYERS[layer]
    drawn = operations.consistent_arrays(op, size, operations.dtype_of(dtype), seed=0)
    benchmark.extra_info.update(op=op, layer=size, dtype=dtype)
    device = "gpu" if candidate in ("gpugrad-gpu", "cupy") else "cpu"
    if device == "gpu":
        import cupy

        drawn = {name: cupy.asarray(one) for name, one in drawn.items()}
    if candidate.startswith("gpugrad"):
        given = {name: drawn[name] for name in OPERATIONS[op].operands}
        benchmark(_timed(functools.partial(operations.call, op, given, device=device), device))
        return
    try:
        found = PEERS[candidate].implementations(op, drawn, device)[0]
    except ImportError as reason:  # such as no cuBLAS
        pytest.skip(str(reason))
    with found.within():
        benchmark(_timed(found.call, device))


def _timed(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Return a call that lasts until its results are there."""
    if device == "cpu":
        return call
    import cupy

    def finished() -> Any:
        results = call()
        cupy.cuda.get_current_stream().synchronize()
        return results

    return finished
