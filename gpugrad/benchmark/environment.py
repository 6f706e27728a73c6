"""Where it was measured: processor, memory, GPU, versions, and the threads of each library."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpugrad import dispatch, host
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
        "processor": host.processor(),
        "cores": host.cores(),
        "memory": free_memory(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": gpu() if "gpu" in places else None,
        "no_gpu_because": dispatch.gpu_missing() if "gpu" not in places else None,
        "gpugrad": {"threads": threads},
        "peers": {peer.title: peer.facts() for peer in dict.fromkeys((numpy, *peers))},
    }


def gpu() -> dict[str, Any]:
    """Describe the current GPU."""
    facts = dispatch.runtime().facts(None)
    return {
        "name": facts.name,
        "compute_capability": ".".join(map(str, facts.compute_capability)),
        "multiprocessors": facts.sm_count,
        "clock_hz": facts.clock_hz,
        "memory": facts.memory,
        "bandwidth": facts.bandwidth,
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


def free_memory() -> int | None:
    """Return the bytes of memory that this process can still have, or None where nothing says."""
    limits = [free for free in (_system_free(), _group_free()) if free is not None]
    return min(limits, default=None)


def _system_free() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(value.split()[0])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _group_free() -> int | None:
    """Return the limit of the control group, by which a container is limited."""
    group = Path("/sys/fs/cgroup")
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((group / limit).read_text()) - int((group / usage).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return None
