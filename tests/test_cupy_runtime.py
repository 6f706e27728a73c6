"""The CuPy runtime's own logic, with a stand-in for CuPy: memoised kernels, opt-in, fall-back."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

MACROS = ("ELEMENT_F32",)


class Function:
    """A kernel that notes its launches."""

    max_dynamic_shared_size_bytes = 0

    def __init__(self, module: Any, name: str) -> None:
        self.module, self.name, self.launches = module, name, []

    def __call__(self, grid: Any, block: Any, args: Any, **options: Any) -> None:
        self.launches.append((grid, block, args, options))


class RawModule:
    """A module that knows where it came from; `get_function` makes a new object each time."""

    def __init__(self, path: str = "") -> None:
        self.path = path

    def get_function(self, name: str) -> Function:
        return Function(self, name)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    class Device:
        def __init__(self, index: int = 0) -> None:
            self.id, self.compute_capability = index, "90"

        def __enter__(self) -> "Device":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    cupy: Any = ModuleType("cupy")
    cupy.RawModule = RawModule
    cupy.cuda = SimpleNamespace(Device=Device)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    sys.modules.pop("gpugrad.gpu.cupy_runtime", None)
    module = importlib.import_module("gpugrad.gpu.cupy_runtime")
    yield module.CupyRuntime()
    del sys.modules["gpugrad.gpu.cupy_runtime"]


def test_kernels_are_loaded_once_from_the_cache_file(runtime: Any) -> None:
    kernel = runtime.kernel("reduce_splits", "reduce_splits", MACROS)
    assert kernel is runtime.kernel("reduce_splits", "reduce_splits", MACROS)
    assert kernel is not runtime.kernel("reduce_splits", "reduce_splits", ("ELEMENT_F64",))
    assert kernel.name == "reduce_splits"
    assert Path(kernel.module.path).read_bytes().startswith(b"\x7fELF")
    kernel((1,), (32, 8), ())
    assert kernel.launches == [((1,), (32, 8), (), {})]


def test_more_than_48_kib_of_shared_memory_is_opted_into(runtime: Any) -> None:
    small = runtime.kernel("reduce_splits", "reduce_splits", MACROS, 48 << 10)
    large = runtime.kernel("reduce_splits", "reduce_splits", MACROS, 100 << 10)
    assert small.func.max_dynamic_shared_size_bytes == 0
    assert large.func.max_dynamic_shared_size_bytes == 100 << 10
    large((1,), (32, 8), ())
    assert large.func.launches == [((1,), (32, 8), (), {"shared_mem": 100 << 10})]
