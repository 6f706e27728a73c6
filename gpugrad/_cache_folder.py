"""Where files are kept that can be made anew: compiled kernels and the machine's profile."""

import os
import sys
from pathlib import Path


def folder(part: str = "") -> Path:
    """Give GPUGRAD_CACHE_DIR, or a part of this package's folder in the user's cache directory.

    A variable that is empty counts as not set.

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
