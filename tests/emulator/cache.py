"""Files that are built once: named by a hash of everything that they depend on."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import EmulatorError


def folder() -> Path:
    """Return the folder of built files: GPUGRAD_EMULATOR_CACHE, or a folder for each user."""
    chosen = os.environ.get("GPUGRAD_EMULATOR_CACHE")
    default = Path(tempfile.gettempdir()) / f"gpugrad-emulator-{os.getuid()}"
    path = Path(chosen) if chosen else default
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise EmulatorError(f"{path} belongs to another user; set GPUGRAD_EMULATOR_CACHE")
    return path


def key(*parts: str | bytes) -> str:
    """Return the hash of all parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:24]


def built(name: str, build: Callable[[Path], None]) -> Path:
    """Return the path of `name`, a file or folder that `build` makes at another path if missing.

    Processes that want the same thing at once wait for the first of them. What a rename put in
    place is whole, so that a build that was interrupted leaves nothing behind that is used.
    """
    final = folder() / name
    if final.exists():
        return final
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            return final
        aside = Path(tempfile.mkdtemp(prefix="building-", dir=folder()))
        try:
            build(aside / name)
            (aside / name).rename(final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return final
