"""Libraries that compute the same: NumPy, PyTorch, JAX, and cuBLAS through CuPy.

Each has a module here, which imports its framework when it is first called.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpugrad import dispatch
from gpugrad.errors import ArgumentError
from gpugrad.gpu.availability import installed
from gpugrad.operations import OPERATIONS
from gpugrad.testing.operations import Arrays


class Implementation(NamedTuple):
    """An operation bound to operands.

    Attributes
    ----------
    name : str
    call : function
        Its results, in the operation's order; on a GPU it may return before they are there.
    to_host : function
        From one result to a NumPy array.
    device : {"cpu", "gpu"}
        Whose clock tells the time: "gpu" that of the current stream.
    within : function
        A context for calls, entered outside of what is timed.
    """

    name: str
    call: Callable[[], Any]
    to_host: Callable[[Any], Any]
    device: str
    within: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Peer:
    """A library to compare with.

    Attributes
    ----------
    name, title : str
        On the command line, and in text.
    module : str
        Of this package.
    requires : str
        The framework's own module.
    install : str
        What pip installs it by.
    copies : int
        Sets of operands or results that it keeps beside those that all share.
    """

    name: str
    title: str
    module: str
    requires: str
    install: str
    copies: int = 0

    def missing(self) -> str | None:
        """Return why it cannot take part, or None if it can."""
        if not installed(self.requires):
            return f"{self.title} is not installed; pip install {self.install} installs it"
        if self.name == "cupy":
            return dispatch.gpu_missing()
        try:
            importlib.import_module(self.requires)
        except Exception as error:  # whatever a broken installation raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return f"{self.title} cannot be used ({reason}); pip install {self.install} installs it"
        return None

    def implementations(
        self, op: str, operands: Mapping[str, Any], device: str
    ) -> list[Implementation]:
        """Return its implementations on arrays of NumPy ("cpu") or CuPy ("gpu")."""
        found: list[Implementation] = self._adapter().implementations(op, operands, device)
        return found

    def facts(self) -> dict[str, Any]:
        """Return its version and threads."""
        found: dict[str, Any] = self._adapter().facts()
        return found

    def _adapter(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.module}")


PEERS = {
    peer.name: peer
    for peer in (
        Peer("numpy", "NumPy", "plain_numpy", "numpy", "numpy"),
        Peer("torch", "PyTorch", "pytorch", "torch", "torch", copies=1),
        Peer("jax", "JAX", "jitted_jax", "jax", "jax", copies=1),
        Peer("cupy", "CuPy", "cupy_cublas", "cupy", "'gpugrad[cuda13]'", copies=1),
    )
}


def chosen(names: tuple[str, ...] | None) -> list[Peer]:
    """Return the peers of these names, or all that can take part if there are no names.

    Raises
    ------
    ArgumentError
        One that is named cannot take part.
    """
    if names is None:
        return [peer for peer in PEERS.values() if peer.missing() is None]
    for name in names:
        reason = PEERS[name].missing()
        if reason is not None:
            raise ArgumentError(f"--against {name}: {reason}")
    return [PEERS[name] for name in names]


def on_host(op: str, implementation: Implementation, results: Any) -> Arrays:
    """Copy the results of an implementation's call to the host, by name."""
    if isinstance(results, Mapping):
        results = tuple(results.values())
    several = results if isinstance(results, tuple | list) else (results,)
    names = OPERATIONS[op].results
    return {name: implementation.to_host(one) for name, one in zip(names, several, strict=True)}
