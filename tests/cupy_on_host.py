"""CuPy's own arrays on the host's memory, and launches from the driver's arguments on the emulator.

What a repeated call hands to the driver, addresses of addresses, is read here as the driver would
read it, so that what the kernels compute tells whether it was right.
"""

import ctypes
import functools
import math
import weakref
from types import SimpleNamespace
from typing import Any, NamedTuple

import cupy
import numpy as np

from bench import no_driver
from gpugrad.gpu.cupy_runtime import CupyRuntime
from tests.conftest import Backend
from tests.emulator import TensorMap
from tests.emulator_runtime import FACTS, EmulatorRuntime

POISON = 0xFF  # a value of such bytes is a NaN in every dtype


class Kernel:
    """A kernel on the emulator, in the place of CuPy's RawKernel; it knows its own launches.

    The memory at an address does not tell how far it reaches: that is taken from the earlier launch
    with the same grid and the same scalars. One without an earlier launch is an error.
    """

    def __init__(self, run: Any, number: int, noted: list[str]) -> None:
        self.run, self.kernel, self.noted = run, SimpleNamespace(ptr=number), noted
        self.launches: list[tuple[Any, tuple[Any, ...]]] = []  # grid, block, shared; arguments

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        self.noted.append("ordinary")
        head = (*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3], shared_mem)
        self.launches.append((head, tuple(described(one) for one in args)))
        self.run(grid, block, tuple(on_host(one) for one in args), shared_mem=shared_mem)

    def from_driver(self, head: tuple[int, ...], parameters: int) -> None:
        """Launch from the address of the arguments' addresses."""
        self.noted.append("repeated")
        for known, args in self.launches:
            if known == head:
                addresses = (ctypes.c_void_p * len(args)).from_address(parameters)
                found = [_read(at or 0, one) for at, one in zip(addresses, args, strict=True)]
                if all(
                    one is not None and (isinstance(kind, tuple) or one == kind)
                    for one, kind in zip(found, args, strict=True)
                ):
                    self.run(head[:3], head[3:6], tuple(found), shared_mem=head[6])
                    return
        raise AssertionError(f"no launch like this one has been before: {head}")


class MapKind(NamedTuple):
    """What two tensor maps have alike that differ by their arrays' addresses alone."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    box: tuple[int, ...]
    swizzle: int

    def encode(self, address: int) -> bytes:
        """Give 128 bytes for an address, as the driver would."""
        return address.to_bytes(8, "little").ljust(128, b"\1")


class HostMap:
    """A tensor map that the emulator can read, from the bytes of a repeated launch too."""

    def __init__(self, array: Any, box: tuple[int, ...], swizzle: int) -> None:
        self.array = array
        self.kind = MapKind(array.shape, array.strides, array.dtype, box, swizzle)
        self.encode = self.kind.encode


def described(argument: Any) -> Any:
    """Give a scalar as it is, and of an array its shape, strides and dtype."""
    if isinstance(argument, HostMap):
        return argument.kind
    if isinstance(argument, cupy.ndarray):
        return argument.shape, argument.strides, argument.dtype
    assert isinstance(argument, np.generic | bytes)
    return argument


def _read(at: int, kind: Any) -> Any:
    """Read an argument of a kind at an address."""
    if isinstance(kind, MapKind):
        of_array = view(ctypes.c_uint64.from_address(at).value, *kind[:3])
        assert ctypes.string_at(at, 128) == kind.encode(of_array.ctypes.data)
        return TensorMap(of_array, kind.box, kind.swizzle)
    if isinstance(kind, tuple):
        return view(ctypes.c_uint64.from_address(at).value, *kind)
    return np.frombuffer(ctypes.string_at(at, kind.dtype.itemsize), kind.dtype)[0]


def place(parameters: int, index: int) -> int:
    """Give the address of an argument, as the driver is told."""
    return ctypes.c_uint64.from_address(parameters + 8 * index).value


def word(parameters: int, index: int) -> int:
    """Read 8 bytes of an argument."""
    return ctypes.c_uint64.from_address(place(parameters, index)).value


def bytes_at(parameters: int, index: int, size: int) -> bytes:
    """Read an argument."""
    return ctypes.string_at(place(parameters, index), size)


def view(start: int, shape: Any, strides: Any, dtype: Any) -> np.ndarray:
    """View the host's memory at an address."""
    reach = [step * (extent - 1) for step, extent in zip(strides, shape, strict=True)]
    low = sum(step for step in reach if step < 0)
    size = sum(step for step in reach if step > 0) - low + dtype.itemsize
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    memory = (ctypes.c_uint8 * size).from_address(start + low)
    return np.ndarray(shape, dtype, memory, -low, strides)


def on_host(argument: Any) -> Any:
    """View a CuPy array as a NumPy array; a map of one as the emulator's."""
    if isinstance(argument, HostMap):
        return TensorMap(on_host(argument.array), argument.kind.box, argument.kind.swizzle)
    if not isinstance(argument, cupy.ndarray):
        return argument
    return view(argument.data.ptr, argument.shape, argument.strides, argument.dtype)


class HostRuntime(CupyRuntime):
    """CuPy's runtime, with kernels on the emulator and copies by NumPy."""

    def __init__(self, noted: list[str]) -> None:
        self.emulator, self.noted, self.kernels = EmulatorRuntime(), noted, dict[Any, Any]()

    def facts(self, device: int | None) -> Any:
        return FACTS

    def kernel(self, stem: str, function: str, defines: Any, shared_bytes: int = 0) -> Any:
        key = (stem, function, defines)
        if key not in self.kernels:
            run = self.emulator.kernel(*key)
            run = functools.partial(run.func, policy="ascending")
            self.kernels[key] = Kernel(run, len(self.kernels) + 1, self.noted)
        kernel = self.kernels[key]
        return functools.partial(kernel, shared_mem=shared_bytes) if shared_bytes else kernel

    def tensor_map(self, array: Any, box: tuple[int, ...], swizzle: int) -> Any:
        return HostMap(array, box, swizzle) if array.size else bytes(128)

    def compact(self, array: Any) -> Any:
        return copied(array)

    def write(self, array: Any, values: Any) -> None:
        on_host(array)[...] = on_host(values)


class HostDriver(no_driver.Driver):
    """The stand-ins, with memory behind the arrays and launches that compute.

    Attributes
    ----------
    noted : list of str
        Launches in order: "ordinary" by CuPy, or "repeated" from the driver's arguments.
    allocated : list of int
        Bytes of each allocation.
    memory : list of weakref.ref
        Each allocation, as long as it is not given back.
    graph : list of tuple
        Launches on streams that are captured, which are not carried out.
    used : list of int
        The stream of each repeated launch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []
        self.allocated: list[int] = []
        self.used: list[int] = []
        self.memory: list[weakref.ref[Any]] = []
        self.graph: list[tuple[Kernel, tuple[int, ...], list[int]]] = []
        self.shift = 0  # of what is allocated, bytes beyond an aligned address
        self.host = HostRuntime(self.noted)

    def runtime(self) -> Any:
        return self.host

    def allocate(self, size: int) -> Any:
        self.allocated.append(size)
        memory = np.full(size + 2 * no_driver.ALIGNMENT, POISON, np.uint8)
        start = memory.ctypes.data + -memory.ctypes.data % no_driver.ALIGNMENT + self.shift
        self.memory.append(weakref.ref(memory))
        owned = cupy.cuda.UnownedMemory(start, size, memory, self.device)
        return cupy.cuda.MemoryPointer(owned, 0)

    def launch(self, *args: int) -> None:
        function, *extents, shared, stream, parameters, extra = args
        assert extra == 0
        self.used.append(stream)
        kernel = next(one for one in self.host.kernels.values() if one.kernel.ptr == function)
        if stream not in self.captured:
            kernel.from_driver((*extents, shared), parameters)
            return
        count = len(kernel.launches[0][1])
        values = [word(parameters, index) for index in range(count)]
        self.graph.append((kernel, (*extents, shared), values))

    def replay(self) -> None:
        """Launch what was captured, with the arguments as they were then."""
        for kernel, head, values in self.graph:
            memory = (ctypes.c_uint64 * len(values))(*values)
            first = ctypes.addressof(memory)
            places = (ctypes.c_void_p * len(values))(*(first + 8 * i for i in range(len(values))))
            kernel.from_driver(head, ctypes.addressof(places))


class HostCupy(Backend):
    """CuPy arrays on the host: for `compute` and `expect_right`."""

    name = "cupy-on-host"
    device = "auto"

    def array(self, array: np.ndarray) -> Any:
        return no_driver.array(array)

    def numpy(self, array: Any) -> Any:
        assert type(array) is cupy.ndarray
        return on_host(array).copy()


def copied(array: Any) -> Any:
    """Copy a CuPy array into new memory, row by row."""
    copy = cupy.empty(array.shape, array.dtype)
    on_host(copy)[...] = on_host(array)
    return copy


def as_rows(array: Any) -> Any:
    """Flatten leading dimensions as `_arrays.as_rows` does, where that copies by NumPy."""
    shape = (math.prod(array.shape[:-1]), array.shape[-1])
    rows = on_host(array).reshape(shape)
    if array.size == 0 or np.shares_memory(rows, on_host(array)):
        return array.reshape(shape)
    return copied(no_driver.array(rows))
