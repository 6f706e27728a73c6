"""Whatever touches device arrays happens on their device, in their framework's stream."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import gradients
from gpugrad.arrays import call, kinds


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

    monkeypatch.setattr(kinds, "working_on", working_on)
    monkeypatch.setattr(kinds, "see", noting("view", kinds.see))
    monkeypatch.setattr(kinds, "empty", noting("allocate", kinds.empty))
    monkeypatch.setattr(gradients, "run", noting("run", gradients.run))
    for module in (gradients, call):
        monkeypatch.setattr(module, "as_rows", noting("flatten", module.as_rows))
    monkeypatch.setattr(call, "overlap", noting("write back?", call.overlap))
    return noted


def test_views_copies_and_kernels_are_inside_the_context(events: list[str]) -> None:
    x, w = np.ones((2, 3, 4)), np.ones((4, 5))
    dy = np.ones((2, 3, 5))
    gpugrad.matmul_backward(dy, x, w, device="cpu")
    assert events[0] == "enter NumPy cpu"
    assert events[-1] == "leave"
    assert events.count("leave") == 1
    assert set(events) >= {"view", "allocate", "flatten", "run", "write back?"}


@pytest.mark.filterwarnings("ignore:ExternalStream is deprecated")
@pytest.mark.parametrize("kind", ["CuPy", "PyTorch", "JAX"])
@pytest.mark.parametrize("modern", [False, True], ids=["ExternalStream", "from_external"])
def test_the_stream_is_the_callers(
    gpu: None, monkeypatch: pytest.MonkeyPatch, kind: str, modern: bool
) -> None:
    """CuPy's current one, or PyTorch's, whose builds for the CPU have none."""
    import cupy

    def current() -> tuple[int, int]:
        return cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr

    last = cupy.cuda.runtime.getDeviceCount() - 1
    with cupy.cuda.Device(last):
        ours, theirs = cupy.cuda.Stream(), cupy.cuda.Stream()
    streams = {last: SimpleNamespace(cuda_stream=theirs.ptr)}
    if modern:
        streams[last].__cuda_stream__ = lambda: (0, theirs.ptr)
    torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=streams.get))
    monkeypatch.setitem(sys.modules, "torch", torch)
    before = current()
    with cupy.cuda.Device(last), ours:
        with kinds.working_on(kind, f"gpu:{last}"):
            assert current() == (last, theirs.ptr if kind == "PyTorch" else ours.ptr)
        assert current() == (last, ours.ptr)
    with kinds.working_on(kind, f"gpu:{last}"):
        assert current()[0] == last
    assert current() == before
