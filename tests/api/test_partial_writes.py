"""Failures after the checks: what was given as `out` is said to be in doubt."""

import importlib

import numpy as np
import pytest

import gpugrad
from gpugrad.calls import cache
from gpugrad.errors import ArgumentError
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import OPERATIONS, Operation

ARRAYS = layer_arrays(Layer((4,), 3, 5), "float32")


def operands(operation: Operation) -> list[np.ndarray]:
    return [ARRAYS[name] for name in operation.operands]


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch, operation: Operation) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    cache.clear()
    module = importlib.import_module(f"gpugrad.cpu.{operation.name}")
    monkeypatch.setattr(module, "bind", lambda *_, **__: fail)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_late_failure_says_that_out_is_in_doubt(
    operation: Operation, request: pytest.FixtureRequest
) -> None:
    out = operation.function(*operands(operation), device="cpu")
    request.getfixturevalue("no_memory")
    with pytest.raises(MemoryError) as caught:
        operation.function(*operands(operation), out=out, device="cpu")
    assert caught.value.__notes__ == [f"{operation.name}: out may have been written in part"]
    with pytest.raises(MemoryError) as caught:
        operation.function(*operands(operation), device="cpu")
    assert not hasattr(caught.value, "__notes__"), "there is no buffer to be in doubt"


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_repeated_call_that_fails_says_so_too(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = operation.function(*operands(operation), device="cpu")
    ended = []

    def fail_the_second_time(*_: object) -> None:
        if ended:
            raise MemoryError
        ended.append(True)

    cache.clear()
    module = importlib.import_module(f"gpugrad.cpu.{operation.name}")
    monkeypatch.setattr(module, "bind", lambda *_, **__: fail_the_second_time)
    operation.function(*operands(operation), out=out, device="cpu")
    assert len(cache) == 1
    with pytest.raises(MemoryError) as caught:
        operation.function(*operands(operation), out=out, device="cpu")
    assert caught.value.__notes__ == [f"{operation.name}: out may have been written in part"]
    cache.clear()


def test_a_refusal_says_nothing_of_the_kind() -> None:
    z = np.zeros(3)
    with pytest.raises(ArgumentError) as caught:
        gpugrad.sigmoid(z, out=z, device="moon")
    assert not hasattr(caught.value, "__notes__")
