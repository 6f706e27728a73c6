"""The C++ compiler and CUDA's headers: where they are and how they are called."""

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import EmulatorError, MissingTool

CUDA_INCLUDE_FOLDERS = (  # of the wheels for CUDA 13, and of those for CUDA 12
    ("cu13/include",),
    ("cuda_runtime/include", "cuda_cccl/include"),
)
CUDA_HEADERS = {  # and the packages that have them
    "vector_types.h": "nvidia-cuda-runtime",
    "cuda_fp16.h": "nvidia-cuda-runtime",
    "cuda_bf16.h": "nvidia-cuda-runtime",
    "crt/host_defines.h": "nvidia-cuda-crt",
    "nv/target": "nvidia-cuda-cccl",
}


def run(command: Sequence[str | Path]) -> str:
    """Run a command and return what it printed; EmulatorError with its messages if it fails."""
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise MissingTool(
            f"the emulator needs {command[0]}, which is not installed: apt-get install g++"
        ) from None
    if finished.returncode != 0:
        line = " ".join(map(str, command))
        raise EmulatorError(f"compilation failed: {line}\n{finished.stderr[-6000:]}")
    return finished.stdout


@functools.cache
def compiler() -> str:
    """Return the path of g++."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise EmulatorError("the emulator runs on x86-64 Linux only")
    path = shutil.which("g++")
    if path is None:
        raise MissingTool("the emulator needs g++, which is not installed: apt-get install g++")
    return path


@functools.cache
def linker() -> tuple[str, ...]:
    """Return compiler options for gold where it is installed: it takes a third of ld's time."""
    return ("-fuse-ld=gold",) if shutil.which("ld.gold") else ()


@functools.cache
def cuda_include_folders() -> tuple[Path, ...]:
    """Return folders with the CUDA headers that wheels have installed."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    lacks: list[set[str]] = []
    for folders in CUDA_INCLUDE_FOLDERS:
        found = [root / folder for root in map(Path, roots) for folder in folders]
        lacks.append(
            {
                package
                for header, package in CUDA_HEADERS.items()
                if not any((place / header).is_file() for place in found)
            }
        )
        if not lacks[-1]:
            return tuple(place for place in found if place.is_dir())
    packages = ", ".join(sorted(lacks[0]))  # of CUDA 13
    raise MissingTool(f"the emulator needs {packages} (headers): pip install -e '.[test]'")


def cuda_includes() -> list[str]:
    """Return compiler options that find the CUDA headers."""
    return [option for folder in cuda_include_folders() for option in ("-isystem", str(folder))]


@functools.cache
def fingerprint() -> str:
    """Return what compiled code depends on besides its source: compiler, processor, headers."""
    version = run([compiler(), "-v", "-E", "-x", "c++", "/dev/null"])
    target = run([compiler(), "-march=native", "-Q", "--help=target"])
    places = [folder / name for folder in cuda_include_folders() for name in CUDA_HEADERS]
    headers = [path for path in places if path.is_file()]
    stamps = "".join(f"{path}{path.stat().st_size}{path.stat().st_mtime_ns}" for path in headers)
    return "\n".join((compiler(), run([compiler(), "--version"]), version, target, stamps))


def source_lines(library: Path, offset: int) -> list[tuple[str, int]]:
    """Return (file, line) of a return address in a library, innermost inlined call first."""
    text = run(["addr2line", "-i", "-e", library, hex(offset - 1)])
    frames = re.findall(r"^(\S+):(\d+)", text, re.MULTILINE)
    return [(file, int(line)) for file, line in frames]


def thread_local_symbols(library: Path) -> list[tuple[str, int, int]]:
    """Return (name, offset, bytes) of the thread-local variables of a library."""
    row = re.compile(r"^\s*\d+:\s+([0-9a-f]+)\s+(\d+)\s+TLS\s+.*?(\S+)$", re.MULTILINE)
    found = row.findall(run(["readelf", "-sW", library]))
    return sorted({(name, int(offset, 16), int(size)) for offset, size, name in found if int(size)})
