"""What the tests of the command line stand on: a folder, no GPU, an emulated one."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpugrad import _dispatch
from gpugrad.cli import operations
from tests.conftest import emulated_runtime


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: "there is no NVIDIA driver")


class Near(np.ndarray):
    """Stands for an array on the device."""

    def get(self) -> np.ndarray:
        return np.asarray(self)


class Event:
    """Stands for an event on a stream, on which everything is done at once."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        assert self.seconds


@pytest.fixture
def emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' way through CuPy, with the kernels emulated."""

    def near(array: Any, dtype: Any = None) -> Any:
        return np.array(array, dtype).view(Near)

    def call(*arguments: Any, **options: Any) -> Any:
        return {name: near(one) for name, one in on_host(*arguments, **options).items()}

    on_host = operations.call
    cuda = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda start, end: 1e3 * (end.seconds - start.seconds),
    )
    cupy = SimpleNamespace(
        asarray=near, cuda=cuda, exp=np.exp, sqrt=np.sqrt, zeros_like=np.zeros_like
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(_dispatch, "runtime", emulated_runtime)
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(operations, "call", call)
