"""The disk cache of compiled kernels.

An entry is ``<stem>-<key>-<content>.cubin``. The key is a hash of the compiler's input, the content
a hash of the machine code: a damaged file is detected, and a loader that caches by path cannot
confuse two versions. Entries are written to a temporary file and renamed, so that any number of
processes can share a folder. If the folder is not writable, entries are files of this process: in
memory on Linux, elsewhere in the folder for temporary files.
"""

import atexit
import hashlib
import os
import tempfile
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gpugrad import host
from gpugrad.errors import DeviceError
from gpugrad.gpu import compiler, source


class Entry(NamedTuple):
    """The machine code of a kernel and its file."""

    cubin: bytes
    path: Path


def folder() -> Path:
    """Return the folder of compiled kernels."""
    return host.cache_folder("kernels")


def summary() -> tuple[Path, int, int]:
    """Return the cache's folder, its number of entries and their bytes."""
    sizes = [path.stat().st_size for path in folder().glob("*.cubin")]
    return folder(), len(sizes), sum(sizes)


def key(text: str, defines: tuple[str, ...], arch: str) -> str:
    """Return a hash of all that determines the machine code."""
    digest = hashlib.sha256()
    for part in (text, *defines, arch, compiler.fingerprint()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def load(
    stem: str,
    defines: tuple[str, ...],
    arch: str,
    compile_kernel: Callable[..., compiler.Compiled] = compiler.compile_kernel,
) -> Entry:
    """Return the machine code of a kernel from the cache; compile and cache it if it is missing.

    Raises
    ------
    KernelCompileError
        See `compiler.compile_kernel`.
    DeviceError
        There is no compiler, or no file can be written.
    """
    text = source.expand(stem)
    name = f"{stem}-{key(text, defines, arch)}"
    try:
        where = folder()
        entry = _find(where, name)
    except (OSError, RuntimeError) as error:  # no permission, or no home directory
        where = None
        entry, reason = None, error
    entry = entry or _of_process.get(name)
    if entry is not None:
        return entry
    cubin = compile_kernel(stem, defines, arch, text=text).cubin
    if where is not None:
        try:
            return Entry(cubin, _write(where, name, cubin))
        except OSError as error:
            reason = error
    _warn_once(f"compiled kernels cannot be cached on disk ({reason}); see GPUGRAD_CACHE_DIR")
    try:
        return _of_process.setdefault(name, Entry(cubin, _own_file(name, cubin)))
    except OSError as error:
        raise DeviceError(f"{stem}: the compiled kernel cannot be written ({error})") from error


def _find(where: Path, name: str) -> Entry | None:
    for path in sorted(where.glob(f"{name}-*.cubin")):
        try:
            cubin = path.read_bytes()
        except (FileNotFoundError, PermissionError):  # replaced, or of another user
            continue
        if path.stem == f"{name}-{_content(cubin)}":
            return Entry(cubin, path)
        _warn_once(f"the compiled kernel {path} is damaged; it is compiled again")
        path.unlink(missing_ok=True)
    return None


def _write(where: Path, name: str, cubin: bytes) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"{name}-{_content(cubin)}.cubin"
    temporary = where / f".{uuid.uuid4().hex}.tmp"  # mkstemp restricts it to its owner
    try:
        with temporary.open("xb") as file:
            file.write(cubin)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _own_file(name: str, cubin: bytes) -> Path:
    """Write a file that lasts as long as this process; loaders take paths only."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create(name)  # never closed, so that its path stays valid
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(cubin)
        return Path(f"/proc/self/fd/{handle}")
    handle, text = tempfile.mkstemp(prefix=f"gpugrad-{name}-", suffix=".cubin")
    path = Path(text)
    atexit.register(path.unlink, missing_ok=True)
    with os.fdopen(handle, "wb") as file:
        file.write(cubin)
    return path


def _content(cubin: bytes) -> str:
    return hashlib.sha256(cubin).hexdigest()[:16]


_of_process: dict[str, Entry] = {}  # entries not in the folder, by name
_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(f"gpugrad: {message}", RuntimeWarning, stacklevel=2)
