"""Launches, carried out: this package's kernels on the emulator, CuPy's own by NumPy."""

import _thread
import functools
import re
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad.gpu import cache, compiler, source
from gpugrad.planning.instantiations import INSTANTIATIONS
from tests.emulator import EmulatorError, Pointer, TensorMap
from tests.support.emulator_runtime import module

from . import cupy_kernels, cupy_sources, memory
from .library import ForeignTensorMapError, Launch, TensorMapFields, library

LAUNCH_FAILED, ILLEGAL_ADDRESS = 719, 700
CUBIN = re.compile(r"(\w+)-([0-9a-f]{24})")  # as gpugrad.gpu.cache names them
CAPABILITY = "90"


def run(launch: Launch) -> int:
    """Carry out a launch; return its status, and leave what is wrong with the driver."""
    name = launch.name.decode()
    try:
        if launch.path == b"memory":  # of a module that CuPy has compiled
            cupy_kernels.run(
                cupy_sources.kernel(launch.module, name), launch.values(), launch.device
            )
        else:
            _emulate(name, launch)
    except memory.IllegalAddressError as error:
        library().played_refuse(f"{name}: {error}".encode())
        return ILLEGAL_ADDRESS
    except (EmulatorError, ForeignTensorMapError, cupy_sources.NotPlayedError) as error:
        library().played_refuse(str(error).encode())
        return LAUNCH_FAILED
    except KeyboardInterrupt:  # which cannot pass through C: the main thread gets it later
        library().played_refuse(f"{name}: interrupted".encode())
        _thread.interrupt_main()
        return LAUNCH_FAILED
    except Exception:
        library().played_refuse(f"{name}: {traceback.format_exc()}".encode())
        return LAUNCH_FAILED
    return 0


def _emulate(name: str, launch: Launch) -> None:
    stem, defines = instantiation(launch.path.decode())
    function = module(source.directory() / f"{stem}.cu", defines).get_function(name)
    arguments = [
        _argument(parameter, value, launch.device)
        for parameter, value in zip(function.parameters, launch.values(), strict=True)
    ]
    function(
        tuple(launch.grid),
        tuple(launch.block),
        arguments,
        shared_mem=launch.shared,
        arithmetic="hopper",
    )


def _argument(parameter: Any, value: bytes, device: int) -> Any:
    """Turn a parameter's bytes into what the emulator takes."""
    if parameter.is_pointer:
        address = int.from_bytes(value, "little")
        return Pointer(*memory.place(address, device)) if address else None
    if parameter.kind == "s":
        return _tensor_map(value, device) if any(value) else value
    letter = "?" if parameter.kind == "b" else f"{parameter.kind}{parameter.size}"
    return np.frombuffer(value, letter)[0]


def _tensor_map(value: bytes, device: int) -> Any:
    found = TensorMapFields.read(value)
    item = found.item_bytes
    shape, steps = found.extents[::-1], (*found.strides[::-1], item)
    array = memory.view(found.address, device, shape, steps, f"u{item}")
    return TensorMap(array, found.box[::-1], found.swizzle)


def instantiation(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the kernel file and the macros of a cubin, by its name in the cache."""
    if path.startswith("/proc/self/fd/"):
        path = str(Path(path).readlink())
    found = CUBIN.search(path)
    if not found:
        raise EmulatorError(f"{path} is no cubin of this package")
    return _instantiations(found[1])[found[2]]


@functools.cache
def _instantiations(stem: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the instantiations of a kernel file by their keys in the cache."""
    text, arch = source.expand(stem), compiler.architecture(stem, CAPABILITY)
    known = [one.macros for one in INSTANTIATIONS if one.stem == stem]
    return {cache.key(text, defines, arch): (stem, defines) for defines in known}
