"""The played runtime in the place of CuPy's.

CuPy's modules call the CUDA runtime by the C functions that its module `runtime` exports to them
(`__pyx_capi__`); the runtime itself is linked into that module. The library has a function of the
same C type for each that it plays; the others stay CuPy's own, and fail where there is no driver.
"""

import ctypes
import functools
import re
import sys
from typing import Any

from .library import library

TYPES = {
    "PyObject *": ctypes.py_object,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "float": ctypes.c_float,
    "size_t": ctypes.c_size_t,
    "intptr_t": ctypes.c_ssize_t,
}
SKIP = "int __pyx_skip_dispatch"
PROPERTIES = {  # of an H200, those that are asked for
    "name": b"NVIDIA H200 (played)",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "totalGlobalMem": 141 << 30,
    "sharedMemPerBlock": 48 << 10,
    "sharedMemPerBlockOptin": 227 << 10,
    "maxThreadsPerBlock": 1024,
    "regsPerBlock": 65536,
    "warpSize": 32,
    "clockRate": 1_980_000,
    "memoryClockRate": 3_201_000,
    "memoryBusWidth": 6144,
    "l2CacheSize": 1 << 16,
}

_kept: list[Any] = []  # what C holds without saying so


class Optional(ctypes.Structure):
    """Arguments that Cython passes only where they are given."""

    _fields_ = [("count", ctypes.c_int), ("value", ctypes.c_uint)]


def put_in_place() -> None:
    """Exchange the entries; before any other module of CuPy has been imported."""
    if "cupy" in sys.modules:
        raise RuntimeError("the driver has to be played before CuPy is imported")
    from cupy_backends.cuda.api import runtime

    entries = runtime.__pyx_capi__
    properties = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int)(lambda _: dict(PROPERTIES))
    attributes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_uint64, ctypes.c_int, ctypes.c_int)(
        lambda at, device, kind: runtime.PointerAttributes(device, at if kind else 0, 0, kind)
    )
    check = _pointer(entries["check_status"])
    _kept.extend((properties, attributes))
    library().cupy_use(ctypes.c_void_p(check), properties, attributes)
    for name in [*entries]:
        try:
            function = getattr(library(), f"cupy_{name}")
        except AttributeError:
            continue
        signature = _name(entries[name])
        address = ctypes.cast(function, ctypes.c_void_p).value
        entries[name] = _capsule(address, signature)
        if hasattr(runtime, name):
            setattr(runtime, name, _called_from_python(address, signature.decode()))


def _called_from_python(address: int | None, signature: str) -> Any:
    """Return the Python function of a C function whose type Cython has written down."""
    result, _, inside = signature.partition("(")
    names = [one.strip() for one in inside.rstrip(")").split(",")]
    types: list[Any] = [
        ctypes.c_void_p if "__pyx_opt_args" in one else TYPES[re.sub(r" __pyx.*", "", one)]
        for one in names
    ]
    of_result = TYPES.get(result.strip(), ctypes.py_object)  # objects of CuPy's classes too
    function = ctypes.PYFUNCTYPE(of_result, *types)(address or 0)
    required = names.index(SKIP)
    if len(names) == required + 1:
        return _fixed(function, required)
    return functools.partial(_with_optional, function, required)


def _fixed(function: Any, count: int) -> Any:
    if count == 0:
        return lambda: function(0)
    if count == 1:
        return lambda one: function(one, 0)
    return lambda *arguments: function(*arguments, 0)


def _with_optional(function: Any, required: int, *arguments: Any) -> Any:
    given = Optional(len(arguments) - required, *arguments[required:])
    return function(*arguments[:required], 0, ctypes.byref(given))


def _name(capsule: Any) -> bytes:
    function = ctypes.pythonapi.PyCapsule_GetName
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return bytes(function(capsule))


def _pointer(capsule: Any) -> int:
    function = ctypes.pythonapi.PyCapsule_GetPointer
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(function(capsule, _name(capsule)))


def _capsule(address: int | None, name: bytes) -> Any:
    function = ctypes.pythonapi.PyCapsule_New
    function.restype = ctypes.py_object
    function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    _kept.append(name)
    return function(address, name, None)
