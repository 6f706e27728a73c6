"""Clocks, temperature and power of the GPU, from NVIDIA's management library, opened once."""

import ctypes
import functools
import math

LIBRARY = "libnvidia-ml.so.1"
READINGS = {  # function, what it is asked for, and the parts of a unit that it counts
    "sm_mhz": ("nvmlDeviceGetClockInfo", (1,), 1),
    "memory_mhz": ("nvmlDeviceGetClockInfo", (2,), 1),
    "celsius": ("nvmlDeviceGetTemperature", (0,), 1),
    "watts": ("nvmlDeviceGetPowerUsage", (), 1000),
}
VERSION_BYTES = 80


def readings() -> dict[str, float] | None:
    """Read the current GPU: NaN what it does not tell, or None where there is no library."""
    library = _library()
    if library is None:
        return None
    import cupy

    device = _device(cupy.cuda.Device().pci_bus_id)
    found = {}
    for name, (function, asked, parts) in READINGS.items():
        value = ctypes.c_uint(0)
        status = getattr(library, function)(device, *asked, ctypes.byref(value))
        found[name] = math.nan if status else value.value / parts
    return found


def driver_version() -> str | None:
    """Return the driver's version, or None where there is no library."""
    library = _library()
    version = ctypes.create_string_buffer(VERSION_BYTES)
    if library is None or library.nvmlSystemGetDriverVersion(version, VERSION_BYTES):
        return None
    return version.value.decode()


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return None if library.nvmlInit_v2() else library


@functools.cache
def _device(bus: str) -> ctypes.c_void_p:
    """Return the handle of the GPU with a PCI address; one that is not found tells nothing."""
    library, handle = _library(), ctypes.c_void_p()
    assert library is not None
    library.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(handle))
    return handle
