"""The machine: processor, the BLAS of NumPy, and the cache directory."""

import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

CPU_INFO = Path("/proc/cpuinfo")
CPU_QUOTA = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of a control group of version 1
AVX2_ARCHITECTURES = ("Haswell", "Zen")  # of OpenBLAS kernels


class Blas(NamedTuple):
    """A BLAS as found by threadpoolctl, with the architecture of its kernels."""

    library: str
    version: str
    architecture: str
    threads: int

    def __str__(self) -> str:
        kernels = f" with kernels for {self.architecture}" if self.architecture else ""
        return f"{self.library} {self.version}{kernels}"


def variable(name: str) -> str | None:
    """Return an environment variable; None where it is not set or empty."""
    return os.environ.get(name) or None


def processor() -> str:
    """Return the name of the processor."""
    return _cpu_info("model name") or platform.processor() or platform.machine() or "unknown"


def version(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def cores() -> int:
    """Return the number of cores available to this process."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@functools.cache
def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return how many cores' time the container's control groups allow, or None without a quota.

    It is rounded down, and at least 1: the least of the process's group and those around it, of
    version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
    """
    mount, quotas = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            tops, files = [mount, mount / "unified"], ["cpu.max"]
        elif "cpu" in controllers.split(","):
            tops, files = [mount / controllers, mount / "cpu"], [*CPU_QUOTA]
        else:
            continue
        for top in tops:
            group = top / path.strip("/")  # in a container perhaps the host's, and not there
            for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
                found = " ".join(_text(folder / file) for file in files).split()
                if len(found) == 2 and all(one.isdecimal() for one in found):  # else no limit
                    quotas.append(int(found[0]) // max(1, int(found[1])))
    return max(1, min(quotas)) if quotas else None


def blas() -> Blas | None:
    """Return the BLAS of NumPy, or None if threadpoolctl does not know it."""
    from threadpoolctl import threadpool_info

    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    found.sort(key=lambda one: "numpy" not in one["filepath"])  # SciPy may have its own
    if not found:
        return None
    one = found[0]
    version, architecture = one.get("version") or "unknown", one.get("architecture") or ""
    return Blas(one["internal_api"], version, architecture, one["num_threads"])


def blas_hint(used: Blas | None) -> str | None:
    """Return a hint if OpenBLAS has faster kernels for this processor, or None."""
    if used is None or used.library != "openblas" or used.architecture not in AVX2_ARCHITECTURES:
        return None
    if "avx512f" not in _cpu_info("flags").split():
        return None
    value = os.environ.get("OPENBLAS_CORETYPE")
    why = f" because OPENBLAS_CORETYPE is {value!r}" if value else ""
    what = "try without it" if value else "try OPENBLAS_CORETYPE=SkylakeX, set before Python starts"
    return f"the processor has AVX-512, OpenBLAS uses its {used.architecture} kernels{why}: {what}"


def cache_folder(part: str = "") -> Path:
    """Return GPUGRAD_CACHE_DIR, or a subfolder of gpugrad in the user's cache directory.

    An empty variable counts as not set.

    Raises
    ------
    RuntimeError
        The user has no home directory.
    """
    chosen = os.environ.get("GPUGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "gpugrad", part)


def _cpu_info(wanted: str) -> str:
    """Return a field of the first core in /proc/cpuinfo, or an empty string."""
    for line in _text(CPU_INFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""


def _text(path: Path) -> str:
    """Return what is in a file, or nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
