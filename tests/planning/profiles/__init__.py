"""Profiles and times of machines that do not exist, made up for the tests."""

import functools
import json
from pathlib import Path
from typing import Any

from gpugrad.planning import machine_profile
from gpugrad.planning.cpu_costs import CpuRates
from gpugrad.planning.gpu_costs import DeviceFacts, GpuRates

HERE = Path(__file__).parent
MACHINES = ("server", "slow_link", "desktop")


@functools.cache
def profile(machine: str) -> Any:
    """The document of a machine's profile."""
    return json.loads((HERE / f"{machine}.json").read_bytes())


def cpu_rates(machine: str) -> CpuRates:
    return machine_profile._cpu(profile(machine)["cpu"]["rates"])


def gpu_rates(machine: str) -> GpuRates:
    return machine_profile._gpu(profile(machine)["gpu"]["rates"])


def times() -> list[dict[str, Any]]:
    """Seconds of calls on the CPU and on the GPU of the machines."""
    document = json.loads((HERE / "times.json").read_bytes())
    return [dict(zip(document["columns"], row, strict=True)) for row in document["rows"]]


# What their GPUs would tell of themselves.
FACTS = {
    "server": DeviceFacts("a server's GPU", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30),
    "slow_link": DeviceFacts("a GPU far away", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30),
    "desktop": DeviceFacts("an older GPU", (7, 5), 40, 1.59e9, 3.2e11, 16 << 30),
}
