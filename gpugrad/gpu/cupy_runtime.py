"""The runtime on CuPy: device properties, modules, copies between device and host."""

import functools
from typing import Any

import cupy

from gpugrad.gpu import cache, compiler
from gpugrad.gpu.bound import BoundProgram, make_context_current
from gpugrad.gpu.launches import Launch, Program
from gpugrad.planning.gpu_costs import DeviceFacts

# Attributes of a device in kHz, kHz and bits, with defaults for drivers without them.
PROPERTIES = {"ClockRate": 1_500_000, "MemoryClockRate": 6_000_000, "GlobalMemoryBusWidth": 256}
WITHOUT_OPT_IN = 48 << 10  # bytes of dynamic shared memory


class CupyRuntime:
    """The runtime on CUDA devices."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Return the facts of a device; of the current one if None."""
        return _facts(cupy.cuda.Device().id if device is None else device)

    def bind(self, program: Program, arrays: int) -> BoundProgram:
        """Compile and load a program's kernels for the current device."""
        device = cupy.cuda.Device().id
        kernels = [
            kernel(step.stem, step.function, step.macros, step.shared_bytes, device)
            for step in program.steps
            if isinstance(step, Launch)
        ]
        return BoundProgram(program, arrays, kernels)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the current device, from CuPy's pool."""
        return cupy.empty(shape, dtype)

    def to_device(self, array: Any) -> Any:
        """Copy a NumPy array to the current device."""
        return cupy.asarray(array)

    def to_host(self, array: Any, out: Any) -> None:
        """Copy a device array into a NumPy array, without a temporary if it is contiguous."""
        if out.flags.f_contiguous:
            array, out = array.T, out.T
        if out.flags.c_contiguous:
            array.get(out=out)
        else:
            out[...] = array.get()


@functools.cache
def _facts(device: int) -> DeviceFacts:
    properties = cupy.cuda.runtime.getDeviceProperties(device)
    attributes = cupy.cuda.Device(device).attributes
    clock, memory_clock, bus_bits = (
        attributes.get(name) or default  # drivers may leave deprecated attributes out
        for name, default in PROPERTIES.items()
    )
    return DeviceFacts(
        name=properties["name"].decode(),
        compute_capability=(properties["major"], properties["minor"]),
        sm_count=properties["multiProcessorCount"],
        clock_hz=1e3 * clock,
        bandwidth=2 * 1e3 * memory_clock * bus_bits / 8,  # two transfers a clock
        memory=properties["totalGlobalMem"],
    )


@functools.cache
def kernel(
    stem: str, function: str, macros: tuple[str, ...], shared_bytes: int, device: int
) -> int:
    """Return the CUfunction of a kernel that may use `shared_bytes` of dynamic shared memory."""
    arch = compiler.architecture(stem, cupy.cuda.Device(device).compute_capability)
    with cupy.cuda.Device(device):
        make_context_current(device)  # another thread may have loaded the module
        loaded: Any = _module(stem, macros, arch, device).get_function(function)
        if shared_bytes > WITHOUT_OPT_IN:
            loaded.max_dynamic_shared_size_bytes = shared_bytes
        return int(loaded.kernel.ptr)


@functools.cache
def _module(stem: str, defines: tuple[str, ...], arch: str, device: int) -> Any:
    return cupy.RawModule(path=str(cache.load(stem, defines, arch).path))
