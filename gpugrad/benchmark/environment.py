"""Where it was measured: processor, versions, and the threads of each library."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from gpugrad import dispatch
from gpugrad.benchmark import machine
from gpugrad.benchmark.peers import PEERS, Peer
from gpugrad.cpu.threads import number_of_workers


def collect(places: Sequence[str], peers: Sequence[Peer]) -> dict[str, Any]:
    """Gather the facts for JSON.

    Raises
    ------
    ArgumentError
        GPUGRAD_NUM_THREADS is no number of threads.
    """
    numpy = PEERS["numpy"]
    threads = number_of_workers()
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "memory": machine.free_memory(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": _gpu() if "gpu" in places else None,
        "no_gpu_because": dispatch.gpu_missing() if "gpu" not in places else None,
        "gpugrad": {"threads": threads},
        "peers": {peer.title: peer.facts() for peer in dict.fromkeys((numpy, *peers))},
    }


def _gpu() -> dict[str, Any]:
    facts = dispatch.runtime().facts(None)
    return {
        "name": facts.name,
        "compute_capability": ".".join(map(str, facts.compute_capability)),
        "memory": facts.memory,
    }


def device(facts: Mapping[str, Any]) -> str:
    """Name the machine in a line."""
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    gpu = f", {facts['gpu']['name']}" if facts["gpu"] else ""
    return f"{facts['processor']}, {cores}{gpu}"


def software(facts: Mapping[str, Any]) -> str:
    """Return versions and threads in a line."""
    told = []
    for title, one in facts["peers"].items():
        details = []
        if one.get("blas"):
            details.append(one["blas"])
        if one.get("threads"):
            details.append(_threads(one["threads"]))
        told.append(f"{title} {one['version']}" + (f" ({', '.join(details)})" if details else ""))
    return f"gpugrad on {_threads(facts['gpugrad']['threads'])}, " + ", ".join(told)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
