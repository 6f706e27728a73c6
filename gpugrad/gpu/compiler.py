"""The compilation of kernels with NVRTC through cuda.core; needs no GPU."""

import functools
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from gpugrad.errors import DeviceError, KernelCompileError
from gpugrad.gpu import source
from gpugrad.planning.configurations import FAMILIES

IMPORTING = threading.Lock()  # two threads must not import cuda.core at once
HEADERS = ("cuda_fp16.h", "cuda_fp16.hpp", "cuda_bf16.h", "cuda_bf16.hpp")  # used by kernels
TOOLKITS = Path("/usr/local")
VERSION = re.compile(rb"#define CUDA_VERSION (\d+)")
VERSION_WITHIN = 1 << 16  # bytes from the start of cuda.h
OPTIONS = {
    "std": "c++17",
    "fma": False,  # the source contracts explicitly, with fmaf
    "ftz": False,
    "ptxas_options": ["-v"],
}


def _forked() -> None:
    global IMPORTING
    IMPORTING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Compiled(NamedTuple):
    """Machine code, and the output of ptxas: registers, spills, memory."""

    cubin: bytes
    log: str


def architecture(stem: str, capability: str) -> str:
    """Return the target architecture of a kernel file on a device.

    Examples
    --------
    >>> architecture("matmul_backward_mma", "90"), architecture("matmul_backward_wgmma", "90")
    ('sm_90', 'sm_90a')
    """
    return f"sm_{capability}{FAMILIES[stem].suffix}"


def compile_kernel(stem: str, defines: tuple[str, ...], arch: str, *, text: str = "") -> Compiled:
    """Compile one instantiation of a kernel file.

    Parameters
    ----------
    stem : str
        Name of the file in kernels/.
    defines : tuple of str
        Macros of the instantiation, ``"NAME"`` or ``"NAME=value"``.
    arch : str
        The target, such as ``"sm_90"``.
    text : str
        The expanded source, if the caller has it.

    Raises
    ------
    KernelCompileError
        NVRTC rejected the source; has its source and log.
    DeviceError
        There is no compiler.
    """
    problem = missing()
    if problem is not None:
        raise DeviceError(f"{stem}: {problem}")
    with IMPORTING:
        from cuda.core import Program, ProgramOptions
    text = text or source.expand(stem)
    log = io.StringIO()
    options = ProgramOptions(
        name=f"{stem}.cu",
        arch=arch,
        include_path=str(headers()),
        define_macro=[tuple(one.split("=")) if "=" in one else one for one in defines] or None,
        **OPTIONS,
    )
    try:
        code = Program(text, "c++", options).compile("cubin", logs=log).code
    except Exception as error:  # NVRTCError is private to cuda.core
        output = f"{error}\n{log.getvalue()}".replace("\0", "").strip()
        message = f"{stem}: NVRTC rejected it for {arch} with {', '.join(defines) or 'no macros'}"
        raise KernelCompileError(f"{message}:\n{output}", log=output, source=text) from error
    return Compiled(bytes(code), log.getvalue())


@functools.cache
def missing() -> str | None:
    """Return what the compiler lacks and how to get it, or None if it can be used."""
    try:
        with IMPORTING:
            import cuda.core  # noqa: F401
    except Exception as error:  # a broken installation may raise anything
        return f"cuda.core cannot be imported ({_first_line(error)}); {INSTALL}"
    try:
        _loaded()
    except Exception as error:  # exception classes of its loader
        return f"NVRTC's library cannot be loaded ({_first_line(error)}); {INSTALL}"
    if headers() is None:
        others = [f"{path} (CUDA {'.'.join(map(str, of))})" for path, of in _all_headers()]
        but = f", only {', '.join(dict.fromkeys(others))}" if others else ""
        wanted = ".".join(map(str, _loaded()))
        return f"CUDA's headers (cuda_fp16.h) cannot be found for NVRTC {wanted}{but}; {INSTALL}"
    return None


@functools.cache
def headers() -> Path | None:
    """Return the folder of CUDA headers with the major version of the loaded NVRTC, or None."""
    try:
        major, _ = _loaded()
    except Exception:  # not found; see missing()
        return None
    return next((path for path, of in _all_headers() if of[0] == major), None)


def _all_headers() -> Iterator[tuple[Path, tuple[int, int]]]:
    """Iterate over folders of CUDA headers and their versions: wheels first, then toolkits."""
    for path in _folders():
        if all((path / name).is_file() for name in (*HEADERS, "cuda.h")):
            with (path / "cuda.h").open("rb") as file:
                found = VERSION.search(file.read(VERSION_WITHIN))
            if found is not None:
                yield path, (int(found[1]) // 1000, int(found[1]) % 1000 // 10)


def _folders() -> Iterator[Path]:
    spec = util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(root).glob("cu*/include"))  # cu13, cuda_runtime
    for name in ("CUDA_PATH", "CUDA_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name], "include")
    try:
        from cuda.pathfinder import find_nvidia_header_directory

        found = find_nvidia_header_directory("cudart")
    except Exception:  # no pathfinder, or an old one
        found = None
    if found:
        yield Path(found)
    yield from sorted(TOOLKITS.glob("cuda*/include"))


@functools.cache
def version() -> str:
    """Return the version of the loaded NVRTC, with the patch level of its wheel."""
    try:
        major, minor = _loaded()
    except Exception:  # not found; see missing()
        return "NVRTC of unknown version"
    wheel = _version("nvidia-cuda-nvrtc" if major >= 13 else f"nvidia-cuda-nvrtc-cu{major}")
    return f"NVRTC {wheel if wheel.startswith(f'{major}.{minor}.') else f'{major}.{minor}'}"


@functools.cache
def _loaded() -> tuple[int, int]:
    """Load NVRTC's library and return its version; raise what its loader raises."""
    with IMPORTING:
        from cuda.bindings import nvrtc
    status, major, minor = nvrtc.nvrtcVersion()
    if status:
        raise RuntimeError(f"nvrtcVersion returned {status}")
    return int(major), int(minor)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # a loader lists folders after it


@functools.cache
def fingerprint() -> str:
    """Return what determines the machine code besides the source: compiler, headers, options."""
    folder = headers()
    texts = [] if folder is None else [(folder / name).read_bytes() for name in HEADERS]
    return f"{version()}; headers {hashlib.sha256(b''.join(texts)).hexdigest()}; {OPTIONS}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


INSTALL = "install it with pip install 'gpugrad[cuda13]' (CUDA 13) or 'gpugrad[cuda12]' (CUDA 12)"
