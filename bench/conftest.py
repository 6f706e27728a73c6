"""What the benchmarks share: cases, what computes them, and what is told of the machine.

`python -m pytest bench/bench_<stem>.py` runs those of an operation; `-k` picks some, such as
`-k "gpugrad and gpt2"`; `--benchmark-json bench/results/<name>.json` keeps the results with device,
versions and commit. Times are those of the wall, on a GPU until the results are there; times by
events, with operands that no cache holds, are bench/timings.py's.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gpugrad import dispatch
from gpugrad.benchmark import environment
from gpugrad.benchmark.peers import PEERS
from gpugrad.benchmark.sizes import PRESETS
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from tests.support.cases import LAYERS, Layer, layer_arrays

NAMES = ("tiny", "digits", "mnist", "dlrm", "gpt2")
PRESET_LAYERS = {name: Layer((PRESETS[name][0],), *PRESETS[name][1:]) for name in NAMES}
TESTED_LAYERS = {str(one): one for one in LAYERS if one.big and len(one.lead) == 1}
DTYPES = ("float32", "bfloat16")
ON_A_GPU = dispatch.gpu_missing() is None


def ways() -> list[str]:
    """Name the candidates: the library, and others that are installed, on each device."""
    others = [name for name, peer in PEERS.items() if peer.missing() is None]
    return ["gpugrad", *(["gpugrad-gpu"] if ON_A_GPU else []), *others]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `call` for every candidate, on every layer, in every dtype."""
    if "call" in metafunc.fixturenames:
        layers = PRESET_LAYERS | TESTED_LAYERS
        metafunc.parametrize("dtype", DTYPES)
        metafunc.parametrize("layer", layers.values(), ids=list(layers))
        metafunc.parametrize("who", ways())


@pytest.fixture
def call(benchmark: Any, who: str, layer: Layer, dtype: str) -> Iterator[Callable[[str], Any]]:
    """Return what makes, of an operation's name, the call to be timed."""
    stack = ExitStack()

    def bound(op: str) -> Callable[[], Any]:
        arrays = layer_arrays(layer, dtype)
        names = (*OPERATIONS[op].operands, *(["z"] if OPERATIONS[op].takes_z else []))
        drawn = {name: arrays[name] for name in names}
        benchmark.extra_info.update(op=op, layer=[*layer.lead, layer.k, layer.m], dtype=dtype)
        on_gpu = who in ("gpugrad-gpu", "cupy")
        if on_gpu:
            import cupy

            drawn = {name: cupy.asarray(one) for name, one in drawn.items()}
        device = "gpu" if on_gpu else "cpu"
        if who.startswith("gpugrad"):
            given = {name: drawn[name] for name in OPERATIONS[op].operands}
            found: Any = functools.partial(operations.call, op, given, device=device)
        else:
            try:
                way = PEERS[who].implementations(op, drawn, device)[0]
            except ImportError as reason:  # such as no cuBLAS
                pytest.skip(str(reason))
            stack.enter_context(way.within())
            found = way.call
        return functools.partial(_finished, found) if on_gpu else found

    with stack:
        yield bound


def _finished(work: Callable[[], Any]) -> Any:
    import cupy

    results = work()
    cupy.cuda.get_current_stream().synchronize()
    return results


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Return device, versions and threads with the results; the commit is told by the plugin."""
    peers = [peer for peer in PEERS.values() if peer.missing() is None]
    places = ["cpu", *(["gpu"] if ON_A_GPU else [])]
    machine_info["gpugrad"] = environment.collect(places, peers)
