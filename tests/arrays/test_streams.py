"""Views and copies of device arrays happen on their device, in their framework's stream."""

import sys
from types import SimpleNamespace

import pytest

from gpugrad.arrays import kinds


@pytest.mark.parametrize("kind", ["CuPy", "PyTorch", "JAX"])
def test_the_stream_is_the_callers(gpu: None, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """CuPy's current one, or PyTorch's, whose builds for the CPU have none."""
    import cupy

    def current() -> tuple[int, int]:
        return cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr

    last = cupy.cuda.runtime.getDeviceCount() - 1
    with cupy.cuda.Device(last):
        ours, theirs = cupy.cuda.Stream(), cupy.cuda.Stream()
    streams = {last: SimpleNamespace(cuda_stream=theirs.ptr)}
    torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=streams.get))
    monkeypatch.setitem(sys.modules, "torch", torch)
    before = current()
    with cupy.cuda.Device(last), ours:
        with kinds.device_context(kind, f"gpu:{last}"):
            assert current() == (last, theirs.ptr if kind == "PyTorch" else ours.ptr)
        assert current() == (last, ours.ptr)
    with kinds.device_context(kind, f"gpu:{last}"):
        assert current()[0] == last
    assert current() == before
