"""What was measured and where: source revision, device, driver, versions, clocks."""

import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpugrad
from bench import nvml, section
from gpugrad import dispatch, host
from gpugrad.benchmark import environment
from gpugrad.host import version

DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "cuda-core": ("cuda-core",),
    "cuda-bindings": ("cuda-bindings",),
    "nvrtc": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
    "cublas": ("nvidia-cublas", "nvidia-cublas-cu12"),
    "ml_dtypes": ("ml-dtypes",),
    "torch": ("torch",),
    "triton": ("triton",),
    "jax": ("jax",),
    "pytest": ("pytest",),
}
SOURCES = ("gpugrad", "kernels", "tests", "bench")


def tell_of_slow_kernels() -> None:
    """Say so, before anything is measured, where NumPy's BLAS has faster kernels than it uses."""
    hint = host.blas_hint(host.blas())
    if hint is not None:
        print(f"hint: {hint}", file=sys.stderr, flush=True)


def work(section_: section.Section) -> None:
    """Describe this machine, or say what it lacks for a run."""
    section_.data["missing"] = dispatch.gpu_missing()
    if section_.data["missing"] is None:
        section_.data |= {
            "device": device(),
            "driver": nvml.driver_version(),
            "cuda": cuda_versions(),
            "versions": {name: version(*names) for name, names in DISTRIBUTIONS.items()},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": {"model": host.processor(), "cores": host.cores()},
            "clocks": nvml.readings(),
        }


def revision(root: Path, commit: str | None = None) -> dict[str, Any]:
    """Return the version, the commit and whether the tree differs from it, and hash the sources.

    Parameters
    ----------
    root : Path
        The tree.
    commit : str, optional
        What the tree was copied from, used where git does not know.
    """
    known = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal")
    return {
        "version": gpugrad.__version__,
        "commit": known or commit,
        "dirty": bool(changes) if known else None,
        "sources": sources_digest(root),
    }


def sources_digest(root: Path) -> str:
    """Hash the files that decide a run's outcome, which identifies a tree without git too."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".cu", ".cuh", ".h", ".cpp"):
                digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def slug(*parts: str) -> str:
    """Make a file's name of words: lower-case letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", one.lower()).strip("-") for one in parts)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return None
    return done.stdout.strip()


def device() -> dict[str, Any]:
    """Describe the current GPU."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    free, _ = cupy.cuda.runtime.memGetInfo()
    return environment.gpu() | {"free_memory": free, "l2_bytes": int(properties["l2CacheSize"])}


def cuda_versions() -> dict[str, str]:
    """Return the CUDA versions of the driver's interface, CuPy's runtime and NVRTC."""
    import cupy

    found = {
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }
    result = {name: f"{value // 1000}.{value % 1000 // 10}" for name, value in found.items()}
    from gpugrad.gpu import compiler

    return result | {"nvrtc": compiler.version()}


if __name__ == "__main__":
    section.main(work)
