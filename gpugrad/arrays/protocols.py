"""Arrays of unknown types, viewed through the protocols that export their memory.

1. ``__cuda_array_interface__`` comes first, so that memory on a GPU is never copied to the host. It
   states whether the memory is writable, and the stream that writes it.
2. ``__dlpack__`` follows, because ``__dlpack_device__`` names the device without any access.
3. ``__array_interface__`` is used for memory on the host, even if there is DLPack: it always states
   whether the memory is writable, which DLPack does only from version 1.0 on.
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

# DLDeviceType of DLPack. NumPy reads memory of the first group, CuPy of the second.
ON_THE_HOST = (1, 3, 11)  # CPU, CUDA pinned, ROCm pinned
ON_CUDA = (2, 13)  # CUDA, CUDA managed
ELSEWHERE = {4: "OpenCL", 7: "Vulkan", 8: "Metal", 9: "VPI", 10: "ROCm", 14: "oneAPI", 15: "WebGPU"}

# Flags of DLManagedTensorVersioned follow the version, the manager context and the deleter.
FLAGS_OFFSET = 8 + 2 * ctypes.sizeof(ctypes.c_void_p)
READ_ONLY, COPIED = 1, 2


class Origin(NamedTuple):
    """An array API namespace and one of its devices, for the results."""

    namespace: Any
    device: Any

    def __str__(self) -> str:
        return str(self.device)


def exports_memory(value: Any) -> bool:
    """Return whether an object implements one of the protocols."""
    if isinstance(value, type):  # a class has the attributes of its instances
        return False
    return (
        _interface(value, "__cuda_array_interface__") is not None
        or _exports(value)
        or _interface(value, "__array_interface__") is not None
    )


def _interface(value: Any, name: str) -> Any:
    """Return an array interface, or None."""
    with unsupported_if_it_fails():
        interface = getattr(value, name, None)
    if not isinstance(interface, dict):
        return None
    if interface.get("mask") is not None:
        raise Unsupported("is a masked array, expected a plain one")
    return interface


def _exports(value: Any) -> bool:
    """Return whether an array implements DLPack."""
    with unsupported_if_it_fails():
        methods = (getattr(value, name, None) for name in ("__dlpack__", "__dlpack_device__"))
        return all(callable(method) for method in methods)


def memory_device(value: Any) -> str:
    """Return the device of an array's memory: "cpu" or "gpu:<index>"."""
    with unsupported_if_it_fails():
        interface = _interface(value, "__cuda_array_interface__")
        if interface is not None:
            return f"gpu:{_device_of_address(interface['data'][0])}"
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


def _device_of_address(address: int) -> int:
    """Return the index of the device that owns an address; the current one for a null pointer."""
    cuda = _cupy_with_a_gpu().cuda
    device: int = cuda.UnownedMemory(address, 0, None).device_id if address else cuda.Device().id
    return device


def view_memory(value: Any) -> ArrayView:
    """View an array as a NumPy or CuPy array; its GPU must be the current device.

    CuPy's `asarray` would copy an array of another device to the current one, and synchronize with
    the stream of the interface.
    """
    namespace = namespace_of(value)
    origin = None if namespace is None else Origin(namespace, getattr(value, "device", None))
    interface = _interface(value, "__cuda_array_interface__")
    if interface is not None:
        array = imported_cupy().asarray(_WithoutStream(value, interface))
        obstacle = "is read-only" if interface["data"][1] else ""
        return ArrayView(array, obstacle, origin, interface.get("stream"))
    if memory_device(value) != "cpu":
        return ArrayView(*_by_dlpack(value, imported_cupy()), origin)
    if _interface(value, "__array_interface__") is None:
        return ArrayView(*_by_dlpack(value, np), origin)
    array = np.asarray(value, copy=False)
    return ArrayView(array, "" if array.flags.writeable else "is read-only", origin)


def _cupy_with_a_gpu() -> Any:
    cupy = imported_cupy()
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # an exception class of CuPy
        raise DeviceUnavailable(f"is on a GPU, but CuPy finds none ({error})") from error
    return cupy


class _WithoutStream:
    """An array's interface without its stream."""

    def __init__(self, owner: Any, interface: dict[str, Any]) -> None:
        self.owner, self.__cuda_array_interface__ = owner, interface | {"stream": None}


class _Exporter:
    """An array that records the flags of its DLPack capsule, which CuPy ignores."""

    def __init__(self, value: Any) -> None:
        self.value, self.obstacle = value, ""

    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.value.__dlpack__(**options)
        self.obstacle = _obstacle(capsule)
        return capsule


def _obstacle(capsule: Any) -> str:
    """Return why the memory of a DLPack capsule is not writable, or an empty string."""
    name = b"dltensor_versioned"
    arguments = (ctypes.py_object, ctypes.c_char_p)
    is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, *arguments)
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, *arguments)
    if not is_valid(("PyCapsule_IsValid", ctypes.pythonapi))(capsule, name):
        return "is exported by DLPack before 1.0, which does not state whether it is writable"
    tensor = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name)
    flags = ctypes.c_uint64.from_address(tensor + FLAGS_OFFSET).value
    if flags & READ_ONLY:
        return "is read-only"
    return "is exported by DLPack as a copy" if flags & COPIED else ""


def _by_dlpack(value: Any, library: Any) -> tuple[Any, str]:
    exporter = _Exporter(value)
    try:
        array = library.from_dlpack(exporter)
    except Exception:
        if "bfloat16" in str(getattr(value, "dtype", "")):
            raise Unsupported("is bfloat16, which NumPy and CuPy do not import by DLPack") from None
        raise
    return array, exporter.obstacle


def namespace_of(value: Any) -> Any:
    """Return the array API namespace of `value`, or None for NumPy, CuPy or no usable one."""
    try:
        namespace = value.__array_namespace__()
    except Exception:  # none, or a broken one
        return None
    makes = hasattr(namespace, "from_dlpack") or hasattr(namespace, "asarray")
    return namespace if makes and namespace not in (np, sys.modules.get("cupy")) else None


def to_namespace(array: Any, origin: Origin) -> Any:
    """Convert a NumPy or CuPy array to an array of a namespace, on one of its devices."""
    namespace, device = origin
    with unsupported_if_it_fails("cannot be converted to the inputs' kind"):
        try:
            made = namespace.from_dlpack(array)
        except Exception:  # not provided, or not for this dtype or library
            made = namespace.asarray(array)
        return made if getattr(made, "device", device) == device else made.to_device(device)
