"""What a machine lacks for the use of a GPU, in words, without importing what is not needed."""

import ctypes
import sys
from importlib import util

from gpugrad.gpu import compiler

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
OLDEST = (7, 5)


def missing() -> str | None:
    """Return what is missing and how to get it, or None where a GPU can be used."""
    problem = driver_problem()
    if problem is not None:
        return problem
    if not installed("cupy"):
        return f"CuPy is not installed; {compiler.HOW}"
    problem = compiler.missing()
    if problem is not None:
        return problem
    try:
        import cupy

        device = cupy.cuda.Device()
        major, minor = divmod(int(device.compute_capability), 10)
        if (major, minor) < OLDEST:
            name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
            return (
                f"the GPU {name} has compute capability {major}.{minor}, "
                f"the kernels need {OLDEST[0]}.{OLDEST[1]} or newer"
            )
        cupy.zeros(1).item()
    except Exception as error:  # whatever a broken installation raises is the answer
        return f"CuPy cannot use the GPU: {type(error).__name__}: {error}"
    return None


def driver() -> ctypes.CDLL:
    """Load the NVIDIA driver's library; OSError where there is none."""
    return ctypes.CDLL(DRIVER)


def driver_problem() -> str | None:
    """Ask the NVIDIA driver for devices; say what is wrong with it, or None."""
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
