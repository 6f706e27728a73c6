"""An output file that is checked to be writable before a long command."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpugrad.errors import ArgumentError, GpugradError


@contextmanager
def reserved(path: Path, option: str = "--output") -> Iterator[Callable[[bytes], None]]:
    """Return a context manager whose value is a function that writes the file atomically.

    Parameters
    ----------
    path : Path
    option : str
        The option of the path, for messages.

    Raises
    ------
    ArgumentError
        On entry, if the file cannot be written.
    GpugradError
        From the function, if the file cannot be written after all.
    """
    try:
        target = path.resolve()
        if target.is_symlink():  # Python 3.13 raises nothing
            raise ArgumentError(f"{option}: {path} cannot be written: a loop of links")
        if target.is_dir():
            raise ArgumentError(f"{option}: {path} is a directory")
        if target.exists() and not os.access(target, os.W_OK):
            raise ArgumentError(f"{option}: {path} is read-only")
        # A temporary file in the same folder is renamed. A device file is written directly.
        regular = target.is_file() or not target.exists()
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part") if regular else target
        file = temporary.open("wb")
    except OSError as error:
        raise ArgumentError(f"{option}: {path} cannot be written: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:  # a loop of links, an invalid name
        raise ArgumentError(f"{option}: {path} cannot be written: {error}") from None

    def write(content: bytes) -> None:
        try:
            file.write(content)
            file.close()
            if regular:
                temporary.replace(target)
        except OSError as error:
            raise GpugradError(f"{path} cannot be written: {error.strerror}") from None

    try:
        yield write
    finally:
        with suppress(OSError):
            file.close()
        if regular:
            temporary.unlink(missing_ok=True)
