"""What the machine is: processor, cores, memory."""

import os
from pathlib import Path

from gpugrad.host import cores as cores
from gpugrad.host import processor as processor


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
