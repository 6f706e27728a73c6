"""What the tests of the command line stand on: a folder, no GPU, an emulated one."""

import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpugrad import _dispatch
from gpugrad.cli import operations
from gpugrad.cli.peers import cupy_cublas
from tests import numpy_as_cupy
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
def emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    cupy: Any = ModuleType("cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)
    cupy.__version__ = "emulated"
    cupy.asarray, cupy.asnumpy, cupy.cuda = near, np.asarray, cuda
    for name in ("empty", "ones"):
        make = getattr(np, name)
        setattr(cupy, name, lambda *given, make=make: make(*given).view(Near))
    for name in ("exp", "sqrt", "zeros_like"):
        setattr(cupy, name, getattr(np, name))
    cupy.ElementwiseKernel = numpy_as_cupy.elementwise_kernel
    cupy_cublas.compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(_dispatch, "runtime", emulated_runtime)
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(operations, "call", call)
    yield
    cupy_cublas.compiled.cache_clear()
