"""Why no GPU can be used on this machine; imports no more than needed."""

import ctypes
import sys
from importlib import util

from gpugrad.gpu import compiler

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MIN_CAPABILITY = (7, 5)


def missing() -> str | None:
    """Return what is missing and how to get it, or None if a GPU can be used."""
    problem = driver_problem()
    if problem is not None:
        return problem
    if not installed("cupy"):
        return f"CuPy is not installed; {compiler.INSTALL}"
    problem = compiler.missing()
    if problem is not None:
        return problem
    try:
        import cupy

        device = cupy.cuda.Device()
        major, minor = divmod(int(device.compute_capability), 10)
        if (major, minor) < MIN_CAPABILITY:
            name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
            return (
                f"the GPU {name} has compute capability {major}.{minor}, "
                f"the kernels need {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} or newer"
            )
        cupy.zeros(1).item()
    except Exception as error:  # a broken installation may raise anything
        return f"CuPy cannot use the GPU: {type(error).__name__}: {error}"
    return None


def driver() -> ctypes.CDLL:
    """Load the NVIDIA driver's library; raise OSError if there is none."""
    return ctypes.CDLL(DRIVER)


def driver_problem() -> str | None:
    """Return why the NVIDIA driver has no usable device, or None if it has one."""
    try:
        library = driver()
    except OSError:
        return f"there is no NVIDIA driver ({DRIVER}); install the driver for your GPU"
    count = ctypes.c_int(0)
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver finds no usable GPU (error {status} of cuInit)"
    return None if count.value else "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"


def installed(module: str) -> bool:
    """Return whether a module could be imported, without importing it."""
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
