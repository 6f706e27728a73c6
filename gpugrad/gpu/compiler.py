"""From a kernel's source to machine code, by NVRTC through cuda.core; needs no GPU."""

import functools
import io
import threading
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from gpugrad.errors import DeviceError, KernelCompileError
from gpugrad.gpu import source

IMPORTING = threading.Lock()  # cuda.core does not bear a first import from two threads at once
OPTIONS = {
    "std": "c++17",
    "fma": False,  # products are fused where the source says so, and nowhere else
    "ftz": False,
    "ptxas_options": ["-v"],
}


class Compiled(NamedTuple):
    """Machine code, and what the assembler said of its registers and memory."""

    cubin: bytes
    log: str


def compile_kernel(stem: str, defines: tuple[str, ...], arch: str, *, text: str = "") -> Compiled:
    """Compile one instantiation of a kernel file.

    Parameters
    ----------
    stem : str
        Of the file in kernels/.
    defines : tuple of str
        Macros that choose the instantiation, ``"NAME"`` or ``"NAME=value"``.
    arch : str
        Such as ``"sm_90"``.
    text : str
        The expanded source, where the caller has it already.

    Raises
    ------
    KernelCompileError
        NVRTC rejected the source; carries source and log.
    DeviceError
        There is no compiler.
    """
    try:
        with IMPORTING:
            from cuda.core import Program, ProgramOptions
    except ImportError as error:
        raise DeviceError(f"{stem}: cuda.core cannot be imported ({error}); {HOW}") from None
    text = text or source.expand(stem)
    log = io.StringIO()
    options = ProgramOptions(
        name=f"{stem}.cu",
        arch=arch,
        include_path=[str(path) for path in headers()],
        define_macro=[tuple(one.split("=")) if "=" in one else one for one in defines] or None,
        **OPTIONS,
    )
    try:
        code = Program(text, "c++", options).compile("cubin", logs=log).code
    except Exception as error:  # cuda.core raises NVRTCError, which is private to its bindings
        said = f"{error}\n{log.getvalue()}".replace("\0", "").strip()
        message = f"{stem}: NVRTC rejected it for {arch} with {', '.join(defines) or 'no macros'}"
        raise KernelCompileError(f"{message}:\n{said}", log=said, source=text) from error
    return Compiled(bytes(code), log.getvalue())


@functools.cache
def headers() -> tuple[Path, ...]:
    """Find the folders of CUDA's headers (cuda_fp16.h and those it includes)."""
    found = []
    spec = util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for folder in ("cu13/include", "cuda_runtime/include", "cu12/include"):
            path = Path(root, folder)
            if (path / "cuda_fp16.h").is_file():
                found.append(path)
    if not found:
        try:
            from cuda.pathfinder import find_nvidia_header_directory

            path_found = find_nvidia_header_directory("cudart")
        except Exception:  # no pathfinder, or one that does not know the name
            path_found = None
        if path_found:
            found.append(Path(path_found))
    return tuple(found)


@functools.cache
def version() -> str:
    """Give NVRTC's version."""
    found = [one for one in map(_version, ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")) if one]
    if found:
        return f"NVRTC {found[0]}"
    try:
        from cuda.bindings import nvrtc

        return "NVRTC {}.{}".format(*nvrtc.nvrtcVersion()[1:])
    except (ImportError, RuntimeError):
        return "NVRTC of unknown version"


@functools.cache
def fingerprint() -> str:
    """Name what decides the machine code besides the source: compiler, headers and options."""
    headers_of = [_version(name) for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")]
    return f"{version()}; headers {headers_of}; {OPTIONS}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


HOW = "install it with pip install 'gpugrad[cuda13]' (CUDA 13) or 'gpugrad[cuda12]' (CUDA 12)"
