"""A file that is known to be writable before the work that fills it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpugrad.exits import Failed, Unusable


@contextmanager
def reserved(path: Path, option: str = "--output") -> Iterator[Callable[[bytes], None]]:
    """Return a function that writes the file; whole or, if anything goes wrong, not at all.

    Parameters
    ----------
    path : Path
    option : str
        That the path was given by, for messages.

    Raises
    ------
    Unusable
        On entry, if the file cannot be written.
    Failed
        From the function given, if the disk is full after all, for example.
    """
    try:
        target = path.resolve()
        if target.is_dir():
            raise Unusable(f"{option}: {path} is a directory")
        if target.exists() and not os.access(target, os.W_OK):
            raise Unusable(f"{option}: {path} is read-only")
        # Beside the file, to be renamed to it. A device cannot be replaced: it is written itself.
        ordinary = target.is_file() or not target.exists()
        aside = target.with_name(f".{target.name}.{os.getpid()}.part") if ordinary else target
        file = aside.open("wb")
    except OSError as error:
        raise Unusable(f"{option}: {path} cannot be written: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:  # a loop of links, a name that is none
        raise Unusable(f"{option}: {path} cannot be written: {error}") from None

    def write(content: bytes) -> None:
        try:
            file.write(content)
            file.close()
            if ordinary:
                aside.replace(target)
        except OSError as error:
            raise Failed(f"{path} cannot be written: {error.strerror}") from None

    try:
        yield write
    finally:
        with suppress(OSError):
            file.close()
        if ordinary:
            aside.unlink(missing_ok=True)
