"""What compute-sanitizer is to watch: every kernel that there is for a device, launched."""

import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bench import sanitized_calls
from gpugrad import calls, dispatch
from gpugrad.gpu import compiler
from gpugrad.planning.instantiations import INSTANTIATIONS, exists_for
from tests.support.emulator_runtime import FACTS, EmulatorRuntime

MIN_SHARED_BYTES = 64 << 10  # bytes of shared memory of a block, on 7.5


class Recorder(EmulatorRuntime):
    """Notes the instantiations that it is asked for, and launches nothing."""

    def __init__(self, capability):
        super().__init__()
        self.capability, self.seen, self.launches = capability, set(), 0

    def facts(self, device):
        return replace(FACTS, compute_capability=self.capability)

    def launch(self, step, args):
        self.seen.add((step.stem, step.macros))
        self.launches += 1


@pytest.fixture
def recorder(request, monkeypatch):
    found = Recorder(getattr(request, "param", (9, 0)))
    monkeypatch.setattr(dispatch, "runtime", lambda: found)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    monkeypatch.setattr(sanitized_calls, "as_device", np.ascontiguousarray)
    return found


@pytest.mark.parametrize("recorder", [(7, 5), (8, 0), (9, 0)], indirect=True)
def test_every_instantiation_is_launched(recorder):
    major, minor = recorder.capability
    room = MIN_SHARED_BYTES if major < 8 else math.inf
    wanted = {
        (one.stem, one.macros)
        for one in INSTANTIATIONS
        if exists_for(one.stem, compiler.architecture(one.stem, f"{major}{minor}"))
        and one.configuration.shared_bytes <= room
    }
    wanted_calls = sanitized_calls.calls(recorder.capability, quick=False)
    for call in wanted_calls:
        before = recorder.launches
        sanitized_calls.make(call)
        assert recorder.launches > before, call
    assert recorder.seen == wanted
    assert len(wanted_calls) == len(set(wanted_calls))
    assert set(sanitized_calls.calls(recorder.capability, quick=True)) <= set(wanted_calls)


def test_no_call_is_made_as_one_before_was(recorder, monkeypatch):
    """Calls with the same arguments differ in what is planned for them."""
    kept = []
    call = sanitized_calls.Call("sigmoid", "float32", (2, 3, 4))

    def sigmoid(_):
        kept.append(len(calls.cache))

    monkeypatch.setattr(sanitized_calls.gpugrad, "sigmoid", sigmoid)
    calls.cache.keep("of an earlier call", object())
    sanitized_calls.make(call)
    assert kept == [0]


def test_the_program(recorder, tmp_path, monkeypatch, capsys):
    allocators = []
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(set_allocator=allocators.append, get_current_stream=lambda: stream)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    path = tmp_path / "progress.json"
    monkeypatch.setattr(sys, "argv", ["calls", "--quick", "--progress", str(path)])
    sanitized_calls.main()
    count = len(sanitized_calls.calls(recorder.capability, quick=True))
    assert json.loads(path.read_text()) == {"done": count, "planned": count}
    assert allocators == [None]
    assert capsys.readouterr().out.count("\n") == count
