"""The driver's library: compiled once, loaded as libcuda.so.1, and what it shows to Python."""

import ctypes
import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.emulator import cache, toolchain

NATIVE = Path(__file__).resolve().parent / "native"
NAME = "libcuda.so.1"
TENSOR_MAP = struct.Struct("<8sQ4Q5I5HH2I")  # TensorMapRecord in native/control.h
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-Wall", "-Wextra", "-Wno-missing-field-initializers")


class Parameter(ctypes.Structure):
    """LaunchParameter in native/control.h."""

    _fields_ = [("value", ctypes.c_void_p), ("size", ctypes.c_uint64)]


class Launch(ctypes.Structure):
    """LaunchRecord in native/control.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("module", ctypes.c_uint64),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint32),
        ("device", ctypes.c_int32),
        ("parameters", ctypes.POINTER(Parameter)),
        ("parameter_count", ctypes.c_uint32),
    ]

    def values(self) -> list[bytes]:
        """Return the bytes of each parameter."""
        given = self.parameters[: self.parameter_count]
        return [ctypes.string_at(one.value, one.size) for one in given]


class ForeignTensorMapError(Exception):
    """128 bytes that are no tensor map of this driver."""


class TensorMapFields(NamedTuple):
    """The array and the box that a tensor map was encoded for, innermost dimension first."""

    address: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]  # bytes, of all dimensions but the innermost
    box: tuple[int, ...]
    item_bytes: int
    swizzle: int  # bytes

    @classmethod
    def read(cls, value: bytes) -> "TensorMapFields":
        """Read the 128 bytes of a map."""
        magic, address, *rest = TENSOR_MAP.unpack(value[: TENSOR_MAP.size])
        if magic.rstrip(b"\0") != b"played":
            raise ForeignTensorMapError("a tensor map that this driver has not encoded")
        strides, last, box = rest[:4], rest[4:9], rest[9:14]
        rank, item_bytes, swizzle = rest[14:]
        extents = tuple(index + 1 for index in last[:rank])
        return cls(address, extents, (*strides[: rank - 1],), (*box[:rank],), item_bytes, swizzle)


RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Launch))
VISIT = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint64)


@functools.cache
def folder() -> Path:
    """Return the folder that holds the library, which is compiled where it is missing."""
    sources = sorted(NATIVE.glob("*.cpp"))
    texts = [path.read_bytes() for path in sorted(NATIVE.iterdir())]
    version = toolchain.run([toolchain.compiler(), "--version"])
    key = cache.key(*texts, version, *FLAGS)

    def build(target: Path) -> None:
        target.mkdir()
        command = [toolchain.compiler(), *FLAGS, "-shared", f"-Wl,-soname,{NAME}", *sources]
        toolchain.run([*command, "-ldl", "-lpthread", "-o", target / NAME])

    return cache.built(f"driver-{key}", build)


@functools.cache
def library() -> ctypes.CDLL:
    """Load the library, so that whoever opens libcuda.so.1 in this process gets it."""
    loaded = ctypes.CDLL(str(folder() / NAME), mode=ctypes.RTLD_GLOBAL)
    if not hasattr(ctypes.CDLL(NAME), "played_start"):
        raise RuntimeError(
            f"another {NAME} has been loaded; python -m tests.driver COMMAND begins with this"
        )
    loaded.played_devices.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_int]
    loaded.played_order.argtypes = [ctypes.c_int, ctypes.c_uint64]
    loaded.played_start.argtypes = [ctypes.c_void_p]
    loaded.played_refuse.argtypes = [ctypes.c_char_p]
    loaded.played_refusals.argtypes = [ctypes.c_char_p, ctypes.c_int]
    loaded.played_calls.argtypes = [VISIT]
    loaded.played_find.argtypes = [ctypes.c_uint64, ctypes.c_int, *[ctypes.c_void_p] * 3]
    return loaded


def start(run: Callable[[Launch], int] | None) -> None:
    """Have launches carried out by a function, or by none."""
    global _run
    _run = RUN(lambda launch: run(launch.contents)) if run else RUN()
    library().played_start(_run)


_run = RUN()  # must live as long as the library may call it
