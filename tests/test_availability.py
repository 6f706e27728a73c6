"""What is said where a GPU cannot be used, and that `auto` then computes on the CPU."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import DeviceError, _dispatch
from gpugrad.gpu import availability


def fake_cupy(compute_capability: str, zeros: Any = None) -> SimpleNamespace:
    """CuPy as far as the question whether it can be used looks at it."""
    return SimpleNamespace(
        cuda=SimpleNamespace(
            Device=lambda: SimpleNamespace(compute_capability=compute_capability, id=1),
            runtime=SimpleNamespace(getDeviceProperties=lambda i: {"name": b"Testla %d" % i}),
        ),
        zeros=zeros or (lambda _: np.zeros(1)),
    )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that sees a GPU, CuPy and a compiler."""
    monkeypatch.setattr(availability, "driver_problem", lambda: None)
    monkeypatch.setattr(availability, "installed", lambda _: True)
    monkeypatch.setattr(availability.compiler, "missing", lambda: None)


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


@pytest.mark.usefixtures("driver")
def test_a_driver_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "installed", lambda asked: asked != "cupy")
    problem = availability.missing()
    assert problem is not None
    assert problem.startswith("CuPy is not installed; install it with pip install 'gpugrad[cuda")


@pytest.mark.usefixtures("driver")
def test_a_driver_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy("90"))
    monkeypatch.setattr(availability.compiler, "missing", lambda: "NVRTC's library is gone")
    assert availability.missing() == "NVRTC's library is gone"


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is that of the current device, here the second one."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy("70"))
    assert availability.missing() == (
        "the GPU Testla 1 has compute capability 7.0, the kernels need 7.5 or newer"
    )


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> Any:
        raise RuntimeError("cudaErrorECCUncorrectable")

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy("90", broken))
    problem = availability.missing()
    assert problem == "CuPy cannot use the GPU: RuntimeError: cudaErrorECCUncorrectable"


@pytest.mark.parametrize("capability", ["75", "90", "103", "120"])
@pytest.mark.usefixtures("driver")
def test_a_gpu_that_serves(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(capability))
    assert availability.missing() is None


def test_installed_asks_without_importing() -> None:
    assert availability.installed("json")
    assert not availability.installed("no_such_package")
    assert not availability.installed("no_such_package.module")


def test_auto_computes_on_the_cpu_and_gpu_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: "the moon is full")
    z = np.zeros(3)
    assert gpugrad.sigmoid(z).tolist() == [0.5] * 3
    assert gpugrad.plan("sigmoid", z).reason == "no GPU can be used: the moon is full"
    with pytest.raises(DeviceError, match=r"^sigmoid: device is 'gpu', but the moon is full$"):
        gpugrad.sigmoid(z, device="gpu")
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    with pytest.raises(DeviceError, match=r"^sigmoid: GPUGRAD_DEVICE is 'gpu', but the moon"):
        gpugrad.sigmoid(z)
