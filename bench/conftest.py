"""Adds device, versions and threads to the results of pytest-benchmark."""

from typing import Any

import pytest

from gpugrad import dispatch
from gpugrad.benchmark import environment
from gpugrad.benchmark.peers import PEERS

ON_A_GPU = dispatch.gpu_missing() is None
PEERS_HERE = [name for name, peer in PEERS.items() if peer.missing() is None]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Return them with the results; the plugin records the commit."""
    devices = ["cpu", *(["gpu"] if ON_A_GPU else [])]
    machine_info["gpugrad"] = environment.collect(devices, [PEERS[name] for name in PEERS_HERE])
