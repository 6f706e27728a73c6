"""What is said where a GPU cannot be used, and that `auto` then computes on the CPU."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import DeviceError, dispatch
from gpugrad.gpu import availability
from tests import driver
from tests.conftest import ON_A_GPU

played = pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played")
# CuPy asks each device once in a process for its capability.
ON_EACH_CAPABILITY = """
from tests import driver

driver.install()
for device, capability in enumerate((70, 75, 90, 103, 120)):
    with driver.visible(8, capability=capability):
        import cupy
        from gpugrad.gpu import availability, cupy_runtime

        with cupy.cuda.Device(device):
            facts = cupy_runtime.CupyRuntime().facts(device)
            print(facts.compute_capability, availability.missing())
"""


@pytest.mark.parametrize(
    ("status", "count", "says"),
    [
        (100, 0, r"finds no usable GPU \(error 100"),
        (0, 0, "sees no GPU"),
    ],
)
def test_a_driver_without_devices(
    monkeypatch: pytest.MonkeyPatch, status: int, count: int, says: str
) -> None:
    library = SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=lambda _: count)
    monkeypatch.setattr(availability.ctypes, "CDLL", lambda _: library)
    problem = availability.driver_problem()
    assert problem is not None
    assert re.search(says, problem)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(availability.ctypes, "CDLL", missing)
    problem = availability.missing()
    assert problem is not None
    assert "there is no NVIDIA driver" in problem


@played
def test_a_driver_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "installed", lambda asked: asked != "cupy")
    with driver.visible():
        problem = availability.missing()
    assert problem is not None
    assert problem.startswith("CuPy is not installed; install it with pip install 'gpugrad[cuda")


@played
def test_a_driver_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability.compiler, "missing", lambda: "NVRTC's library is gone")
    with driver.visible():
        assert availability.missing() == "NVRTC's library is gone"


@played
def test_a_gpu_that_is_too_old_and_those_that_serve() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_EACH_CAPABILITY],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "(7, 0) the GPU NVIDIA H200 (played) has compute capability 7.0, the kernels need 7.5 "
        "or newer",
        *("(7, 5) None", "(9, 0) None", "(10, 3) None", "(12, 0) None"),
    ]


@played
def test_a_gpu_is_named_that_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "MIN_CAPABILITY", (99, 0))
    with driver.visible():
        import cupy

        properties = {1: {"name": b"Testla 1"}}.__getitem__
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", properties)
        with cupy.cuda.Device(1):
            problem = availability.missing()
    assert problem is not None
    assert problem.startswith("the GPU Testla 1 has compute capability 9.0, the kernels need 99.0")


@played
def test_a_gpu_that_is_broken() -> None:
    import cupy

    with driver.visible():
        cupy.ones(3).argmax()  # a kernel that the driver does not play
        try:
            assert availability.missing() == (
                "CuPy cannot use the GPU: CUDARuntimeError: cudaErrorLaunchFailure: "
                "unspecified launch failure"
            )
        finally:
            driver.recover()


def test_installed_asks_without_importing() -> None:
    assert availability.installed("json")
    assert not availability.installed("no_such_package")
    assert not availability.installed("no_such_package.module")


def test_auto_computes_on_the_cpu_and_gpu_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: "the moon is full")
    z = np.zeros(3)
    assert gpugrad.sigmoid(z).tolist() == [0.5] * 3
    assert gpugrad.plan("sigmoid", z).reason == "no GPU can be used: the moon is full"
    with pytest.raises(DeviceError, match=r"^sigmoid: device is 'gpu', but the moon is full$"):
        gpugrad.sigmoid(z, device="gpu")
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    with pytest.raises(DeviceError, match=r"^sigmoid: GPUGRAD_DEVICE is 'gpu', but the moon"):
        gpugrad.sigmoid(z)
