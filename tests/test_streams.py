"""Whatever touches device arrays happens on their device, in their framework's stream."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import _arrays, _kinds, gradients


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    noted: list[str] = []

    @contextmanager
    def working_on(kind: str, home: str) -> Iterator[None]:
        noted.append(f"enter {kind} {home}")
        yield
        noted.append("leave")

    def noting(name: str, function: Any) -> Any:
        def noted_call(*args: Any, **options: Any) -> Any:
            noted.append(name)
            return function(*args, **options)

        return noted_call

    monkeypatch.setattr(_kinds, "working_on", working_on)
    monkeypatch.setattr(_kinds, "see", noting("view", _kinds.see))
    monkeypatch.setattr(_kinds, "empty", noting("allocate", _kinds.empty))
    monkeypatch.setattr(gradients, "run", noting("run", gradients.run))
    for module in (gradients, _arrays):
        monkeypatch.setattr(module, "as_rows", noting("flatten", module.as_rows))
    monkeypatch.setattr(_arrays, "overlap", noting("write back?", _arrays.overlap))
    return noted


def test_views_copies_and_kernels_are_inside_the_context(events: list[str]) -> None:
    x, w = np.ones((2, 3, 4)), np.ones((4, 5))
    dy = np.ones((2, 3, 5))
    gpugrad.matmul_backward(dy, x, w, device="cpu")
    assert events[0] == "enter NumPy cpu"
    assert events[-1] == "leave"
    assert events.count("leave") == 1
    assert set(events) >= {"view", "allocate", "flatten", "run", "write back?"}


class Device:
    """A device or a stream that notes when it is current."""

    def __init__(self, name: str, current: list[str]) -> None:
        self.name, self.current = name, current

    def __enter__(self) -> "Device":
        self.current.append(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.current.pop() == self.name


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch", "JAX"])
@pytest.mark.parametrize("modern", [False, True], ids=["ExternalStream", "from_external"])
def test_the_stream_is_the_callers(
    monkeypatch: pytest.MonkeyPatch, kind: str, modern: bool
) -> None:
    current: list[str] = []
    theirs = SimpleNamespace(cuda_stream=77, __cuda_stream__=lambda: (0, 77))
    stream = SimpleNamespace()
    if modern:
        stream.from_external = lambda given: Device(f"stream {given.cuda_stream}", current)
    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        Device=lambda index: Device(f"device {index}", current),
        Stream=stream,
        ExternalStream=lambda pointer: Device(f"stream {pointer}", current),
    )
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(current_stream=lambda index: theirs)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with _kinds.working_on(kind, "gpu:1"):
        assert current == ["device 1", *(["stream 77"] if kind == "PyTorch" else [])]
    assert current == []
