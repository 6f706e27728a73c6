"""What is read of a GPU through NVIDIA's management library, from a library that is played."""

import ctypes
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench import nvml
from tests.conftest import needs_compiler

SOURCE = """
#include <cstring>
extern "C" {
static int opened, device;
int times_opened() { return opened; }
int nvmlInit_v2() { ++opened; return 0; }
int nvmlSystemGetDriverVersion(char* out, unsigned length) {
  return std::strlen("580.95.05") < length ? (std::strcpy(out, "580.95.05"), 0) : 7;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** handle) {
  if (std::strcmp(bus, "0000:1b:00.0")) return 6;
  *handle = &device;
  return 0;
}
int nvmlDeviceGetClockInfo(void* of, int type, unsigned* mhz) {
  *mhz = type == 1 ? 1980 : 2619;
  return of == &device ? 0 : 2;
}
int nvmlDeviceGetTemperature(void* of, int sensor, unsigned* celsius) {
  *celsius = 41;
  return of == &device && sensor == 0 ? 0 : 2;
}
int nvmlDeviceGetPowerUsage(void* of, unsigned* milliwatts) { return 3; /* not supported */ }
}
"""


@pytest.fixture
def opened_anew():
    for one in (nvml._library, nvml._device):
        one.cache_clear()
    yield
    for one in (nvml._library, nvml._device):
        one.cache_clear()


@pytest.fixture
def library(tmp_path, monkeypatch, opened_anew):
    needs_compiler()
    source, path = tmp_path / "nvml.cpp", tmp_path / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    monkeypatch.setattr(nvml, "LIBRARY", str(path))
    return ctypes.CDLL(str(path))


def current(monkeypatch, bus):
    cuda = SimpleNamespace(Device=lambda: SimpleNamespace(pci_bus_id=bus))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))


def test_the_current_gpu_is_read_and_the_library_opened_once(library, monkeypatch):
    current(monkeypatch, "0000:1b:00.0")
    for _ in range(3):
        found = nvml.readings()
    assert math.isnan(found.pop("watts"))
    assert found == {"sm_mhz": 1980, "memory_mhz": 2619, "celsius": 41}
    assert nvml.driver_version() == "580.95.05"
    assert library.times_opened() == 1
    current(monkeypatch, "0000:2b:00.0")
    assert all(map(math.isnan, nvml.readings().values()))


@pytest.mark.usefixtures("opened_anew")
def test_without_the_library_there_is_nothing(monkeypatch):
    monkeypatch.setattr(nvml, "LIBRARY", "libno-such-library.so.1")
    assert nvml.readings() is None
    assert nvml.driver_version() is None
