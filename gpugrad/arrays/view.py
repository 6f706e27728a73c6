"""An array of the caller's as it is seen here, or why it cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Unsupported(Exception):  # noqa: N818  (an answer, turned into an error by its catcher)
    """An object that is of a known kind but cannot be viewed as a plain array."""


class DeviceUnavailable(Unsupported):
    """An array on a GPU that cannot be used here."""


class ArrayView(NamedTuple):
    """An array of the caller's, and the same memory as a NumPy or CuPy array."""

    array: Any
    obstacle: str = ""  # why it cannot be written to
    place: Any = None  # JAX's device, or the namespace and its device, to which results return
    stream: int | None = None  # on a GPU, which may still write to it


@contextmanager
def unsupported_if_it_fails(what: str = "cannot be viewed as a plain array") -> Iterator[None]:
    """Turn whatever a framework says of its special arrays into an answer."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unsupported(f"{what} ({reason})") from error
