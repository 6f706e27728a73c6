"""Arrays of unknown types, by the protocols by which they show their memory.

1. ``__cuda_array_interface__``, first of all, so that memory on a GPU is never copied to the host.
   It says what may be written, and on which stream.
2. ``__dlpack__``, because ``__dlpack_device__`` says where memory is before it is touched.
3. ``__array_interface__``, by which memory on the host is then read also where there is DLPack:
   it always says what may be written, DLPack only since its version 1.0.
"""

import ctypes
import sys
from typing import Any, NamedTuple

import numpy as np

from gpugrad.arrays.view import (
    ArrayView,
    DeviceUnavailable,
    Unsupported,
    imported_cupy,
    unsupported_if_it_fails,
)

# The numbers of DLPack's devices. NumPy reads memory of the first, CuPy of the second.
ON_THE_HOST = (1, 3, 11)  # the CPU, and what CUDA or ROCm has pinned
ON_CUDA = (2, 13)  # a GPU's own, and managed
ELSEWHERE = {4: "OpenCL", 7: "Vulkan", 8: "Metal", 9: "VPI", 10: "ROCm", 14: "oneAPI", 15: "WebGPU"}

# The flags of a versioned DLPack tensor, after its version, an owner and a deleter.
FLAGS_OFFSET = 8 + 2 * ctypes.sizeof(ctypes.c_void_p)
READ_ONLY, COPIED = 1, 2


class Origin(NamedTuple):
    """Where results of an array API's kind are made: its namespace, and one of its devices."""

    namespace: Any
    device: Any

    def __str__(self) -> str:
        return str(self.device)


def shows_memory(value: Any) -> bool:
    """Return whether an object has one of the protocols."""
    if isinstance(value, type):  # a class has the attributes of its instances
        return False
    return (
        _interface(value, "__cuda_array_interface__") is not None
        or _exports(value)
        or _interface(value, "__array_interface__") is not None
    )


def _interface(value: Any, name: str) -> Any:
    """Return the dictionary by which an array shows its memory, or None."""
    with unsupported_if_it_fails():
        interface = getattr(value, name, None)
    if not isinstance(interface, dict):
        return None
    if interface.get("mask") is not None:
        raise Unsupported("is a masked array, expected a plain one")
    return interface


def _exports(value: Any) -> bool:
    """Return whether an array has DLPack."""
    with unsupported_if_it_fails():
        methods = (getattr(value, name, None) for name in ("__dlpack__", "__dlpack_device__"))
        return all(callable(method) for method in methods)


def home_of_memory(value: Any) -> str:
    """Return where the memory of an array is: "cpu" or "gpu:<index>"."""
    with unsupported_if_it_fails():
        interface = _interface(value, "__cuda_array_interface__")
        if interface is not None:
            return f"gpu:{_device_of(interface['data'][0])}"
        if not _exports(value):
            return "cpu"
        device, index = value.__dlpack_device__()
        if device in ON_THE_HOST:
            return "cpu"
        if device in ON_CUDA:
            _cupy_with_a_gpu()
            return f"gpu:{index}"
        name = ELSEWHERE.get(device, f"number {int(device)} of DLPack")
        raise Unsupported(f"is on device {name}, expected the CPU or a CUDA GPU")


def _device_of(address: int) -> int:
    """Find the device of memory; that of an empty array without any is the current one."""
    cuda = _cupy_with_a_gpu().cuda
    device: int = cuda.UnownedMemory(address, 0, None).device_id if address else cuda.Device().id
    return device


def see_memory(value: Any) -> ArrayView:
    """View an array as a NumPy or CuPy array; one on a GPU while that is the current device.

    CuPy's `asarray` copies what is on another device to the current one, and synchronizes with the
    stream that the interface names.
    """
    namespace = namespace_of(value)
    place = None if namespace is None else Origin(namespace, getattr(value, "device", None))
    interface = _interface(value, "__cuda_array_interface__")
    if interface is not None:
        array = imported_cupy().asarray(_WithoutStream(value, interface))
        obstacle = "is read-only" if interface["data"][1] else ""
        return ArrayView(array, obstacle, place, interface.get("stream"))
    if home_of_memory(value) != "cpu":
        return ArrayView(*_by_dlpack(value, imported_cupy()), place)
    if _interface(value, "__array_interface__") is None:
        return ArrayView(*_by_dlpack(value, np), place)
    array = np.asarray(value, copy=False)
    return ArrayView(array, "" if array.flags.writeable else "is read-only", place)


def _cupy_with_a_gpu() -> Any:
    cupy = imported_cupy()
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # of CuPy's own class
        raise DeviceUnavailable(f"is on a GPU, but CuPy finds none ({error})") from error
    return cupy


class _WithoutStream:
    """An array whose interface names no stream."""

    def __init__(self, owner: Any, interface: dict[str, Any]) -> None:
        self.owner, self.__cuda_array_interface__ = owner, interface | {"stream": None}


class _Exporter:
    """An array whose DLPack capsule is looked at on its way: CuPy passes over its flags."""

    def __init__(self, value: Any) -> None:
        self.value, self.obstacle = value, ""

    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.value.__dlpack__(**options)
        self.obstacle = _obstacle(capsule)
        return capsule


def _obstacle(capsule: Any) -> str:
    """Return why the memory of a DLPack capsule cannot be written to."""
    name = b"dltensor_versioned"
    arguments = (ctypes.py_object, ctypes.c_char_p)
    is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, *arguments)
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, *arguments)
    if not is_valid(("PyCapsule_IsValid", ctypes.pythonapi))(capsule, name):
        return "comes by an old DLPack, which does not say whether it may be written"
    tensor = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name)
    flags = ctypes.c_uint64.from_address(tensor + FLAGS_OFFSET).value
    if flags & READ_ONLY:
        return "is read-only"
    return "comes by DLPack as a copy" if flags & COPIED else ""


def _by_dlpack(value: Any, library: Any) -> tuple[Any, str]:
    exporter = _Exporter(value)
    try:
        array = library.from_dlpack(exporter)
    except Exception:
        if "bfloat16" in str(getattr(value, "dtype", "")):
            raise Unsupported("is bfloat16, which NumPy and CuPy do not take by DLPack") from None
        raise
    return array, exporter.obstacle


def namespace_of(value: Any) -> Any:
    """Return the array API that makes arrays like `value`, unless that is NumPy or CuPy."""
    try:
        namespace = value.__array_namespace__()
    except Exception:  # there is none, or none of use
        return None
    makes = hasattr(namespace, "from_dlpack") or hasattr(namespace, "asarray")
    return namespace if makes and namespace not in (np, sys.modules.get("cupy")) else None


def to_namespace(array: Any, origin: Origin) -> Any:
    """Hand a NumPy or CuPy array to a namespace, on one of its devices."""
    namespace, device = origin
    with unsupported_if_it_fails("cannot be made an array of the inputs' kind"):
        try:
            made = namespace.from_dlpack(array)
        except Exception:  # it has none, or does not take this dtype or library
            made = namespace.asarray(array)
        return made if getattr(made, "device", device) == device else made.to_device(device)
