"""The GPU as CuPy gives it: arrays from its pool, launches on its current stream."""

import functools
from typing import Any

import cupy

from gpugrad.gpu import cache, captures, compiler
from gpugrad.gpu.frame import Head
from gpugrad.gpu.runtime import Kernel
from gpugrad.gpu.tensor_maps import TensorMap
from gpugrad.planning.gpu_costs import DeviceFacts

# Attributes of a device in kHz, kHz and bits, and what is assumed where they are not told.
PROPERTIES = {"ClockRate": 1_500_000, "MemoryClockRate": 6_000_000, "GlobalMemoryBusWidth": 256}
WITHOUT_OPT_IN = 48 << 10  # bytes of shared memory that every launch may use


class CupyRuntime:
    """The runtime on CUDA devices."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Describe a device, the current one if None."""
        return _facts(cupy.cuda.Device().id if device is None else device)

    def kernel(
        self, stem: str, function: str, defines: tuple[str, ...], shared_bytes: int = 0
    ) -> Kernel:
        """Give a function of an instantiation of a kernel file, compiled on first use."""
        return _kernel(stem, function, defines, shared_bytes, cupy.cuda.Device().id)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the current device, from CuPy's pool."""
        array = cupy.empty(shape, dtype)
        captures.keep_if_captured(array.data, cupy.cuda.get_current_stream().ptr)
        return array

    def tensor_map(self, array: Any, box: tuple[int, ...], swizzle: int) -> Any:
        """Return what TMA needs to know to copy boxes of an array."""
        return TensorMap(array, box, swizzle)

    def compact(self, array: Any) -> Any:
        """Copy an array into contiguous, aligned memory."""
        return array.copy(order="C")

    def write(self, array: Any, values: Any) -> None:
        """Write values, or one value, into an array, by a kernel of CuPy's."""
        array[...] = values

    def to_device(self, array: Any) -> Any:
        """Bring a NumPy array to the current device."""
        return cupy.asarray(array)

    def to_host(self, array: Any, out: Any) -> None:
        """Write a device array's values into a NumPy array, without another one if it can be."""
        if out.flags.f_contiguous:
            array, out = array.T, out.T
        if out.flags.c_contiguous:
            array.get(out=out)
        else:
            out[...] = array.get()


def head_of(kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...]) -> Head:
    """Give what the driver takes of a launch before the stream."""
    of: Any = kernel
    shared, of = (of.keywords["shared_mem"], of.func) if hasattr(of, "func") else (0, of)
    (gx, gy, gz), (bx, by, bz) = ((*one, 1, 1)[:3] for one in (grid, block))
    return of.kernel.ptr, gx, gy, gz, bx, by, bz, shared


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
def _kernel(
    stem: str, function: str, defines: tuple[str, ...], shared_bytes: int, device: int
) -> Kernel:
    arch = compiler.architecture(stem, cupy.cuda.Device(device).compute_capability)
    with cupy.cuda.Device(device):
        launch: Any = _module(stem, defines, arch, device).get_function(function)
        if shared_bytes > WITHOUT_OPT_IN:
            launch.max_dynamic_shared_size_bytes = shared_bytes
    if stem.endswith("_wgmma"):
        launch = WithMaps(launch)
    return functools.partial(launch, shared_mem=shared_bytes) if shared_bytes else launch


class WithMaps:
    """A CuPy kernel with tensor maps among its arguments."""

    def __init__(self, function: Any) -> None:
        self._function = function

    @property
    def kernel(self) -> Any:
        """The function as the driver knows it."""
        return self._function.kernel

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int,
    ) -> None:
        """Launch it with maps by value.

        The driver encodes them in a context, which CuPy makes current in a launch, not before one.
        """
        if not cupy.cuda.driver.ctxGetCurrent():
            cupy.cuda.runtime.memGetInfo()  # what CuPy itself calls for that
        values = (one.by_value() if isinstance(one, TensorMap) else one for one in args)
        self._function(grid, block, tuple(values), shared_mem=shared_mem)


@functools.cache
def _module(stem: str, defines: tuple[str, ...], arch: str, device: int) -> Any:
    return cupy.RawModule(path=str(cache.load(stem, defines, arch).path))
