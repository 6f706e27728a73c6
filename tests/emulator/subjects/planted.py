"""Kernels with one mistake each, the launches that show it, and what their reports must say."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module


@dataclass(frozen=True)
class Planted:
    """How to launch a kernel, and patterns of its report; {name} is the line marked @name.

    `always` is found under every schedule; `first`, which may name threads and elements, where
    threads run in ascending order.
    """

    always: str
    first: tuple[str, ...] = ()
    arguments: Callable[[], tuple[Any, ...]] = lambda: (np.zeros(32, np.int32),)
    block: int = 32
    grid: int = 1
    shared_mem: int = 0


@dataclass(frozen=True)
class PlantedFile:
    """A file of such kernels."""

    path: Path
    kernels: dict[str, Planted]

    def line(self, mark: str) -> str:
        """Return file:line of the comment @mark."""
        lines = self.path.read_text(encoding="utf-8").split("\n")
        (number,) = (i for i, text in enumerate(lines, 1) if text.endswith(f"// @{mark}"))
        return f"{self.path.name}:{number}"

    def with_lines(self, pattern: str) -> str:
        """Return the pattern with {name} replaced by the marked place."""
        return re.sub(r"\{([a-z_]+)\}", lambda mark: re.escape(self.line(mark[1])), pattern)

    def report(self, module: Module, name: str, **options: Any) -> str:
        """Return the message of the error that launching a kernel raises."""
        planted = self.kernels[name]
        kernel = module.get_function(name)
        shape = (planted.grid,), (planted.block,)
        with pytest.raises(EmulatorError) as caught:
            kernel(*shape, planted.arguments(), shared_mem=planted.shared_mem, **options)
        return str(caught.value)

    def require_report(self, module: Module, name: str, policy: str, **options: Any) -> None:
        """Compare the report under a schedule with what it must say."""
        text = self.report(module, name, policy=policy, **options)
        assert text.startswith(f"{name}: ")
        assert text.endswith(f", schedule {policy}]")
        planted = self.kernels[name]
        patterns = planted.first if policy == "ascending" else ()
        for pattern in (planted.always, *patterns):
            assert re.search(self.with_lines(pattern), text), text

    def names(self) -> set[str]:
        """Return all kernels of the file."""
        text = self.path.read_text(encoding="utf-8")
        attributes = r"(?:__(?:launch_bounds|cluster_dims)__\([^)]*\)\s)*"
        return set(re.findall(rf"__global__ void {attributes}(\w+)", text))
