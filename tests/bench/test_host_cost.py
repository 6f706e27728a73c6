"""What a repeated call on CuPy arrays costs the host: its work counted, and its time with a margin.

Where there is no GPU the driver is played, and launches nothing.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpugrad
from bench import host_cost, measured, report, section
from gpugrad import dispatch
from gpugrad.calls import cache
from gpugrad.gpu import tensor_maps
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from tests import driver
from tests.conftest import ON_A_GPU

LAYER = (256, 64, 64)
TARGET = 12e-6  # seconds of dense_sigmoid_backward, on a machine that does nothing else
MARGIN = 5  # of a machine that runs other tests meanwhile
# Calls of functions in a repeated call, itself included, Python's and C's. They are what the time
# goes to: more of them need a reason.
CALLS = {
    "matmul_backward": 29,
    "bias_backward": 28,
    "sigmoid_backward": 24,
    "sigmoid_bias_backward": 34,
    "dense_sigmoid_backward": 38,
    "sigmoid": 22,
    "dense_sigmoid": 24,
}


@pytest.fixture(autouse=True)
def launches_cost_nothing(gpu: None) -> Iterator[None]:
    """Have kernels that take no time, where they are not a GPU's."""
    dispatch.runtime()
    with contextlib.nullcontext() if ON_A_GPU else driver.idle():
        yield


def repeated(op: str, size: tuple[int, int, int] = LAYER, **options: Any) -> Callable[[], Any]:
    """Return a call that has been remembered."""
    import cupy

    operands = [cupy.empty(one, "float32") for one in operations.shapes(op, size).values()]

    def call() -> Any:
        return getattr(gpugrad, op)(*operands, **options)

    call()
    call()
    return call


def calls_in(function: Callable[[], Any]) -> list[str]:
    """Name the functions that are called, Python's and C's."""
    names: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call":
            names.append(argument.__name__)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names[1:-1]  # without the function itself and the end of the noting


@pytest.mark.parametrize("op", OPERATIONS)
def test_calls_that_a_repeated_call_makes(op):
    names = calls_in(repeated(op))
    assert "launchKernel" in names
    assert len(names) <= CALLS[op], names


@pytest.mark.parametrize("op", OPERATIONS)
def test_nothing_is_checked_or_planned(op):
    names = calls_in(repeated(op))
    assert not {"__enter__", "bind", "decide", "choose", "kernel", "expect_operands"} & set(names)


@pytest.mark.parametrize("op", OPERATIONS)
def test_files_that_a_repeated_call_passes(op):
    """The public function, the cache, the bound call and its memory."""
    root, files = Path(gpugrad.__file__).parent, set()

    def note(frame: Any, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(root):
            files.add(path.relative_to(root).as_posix())

    call = repeated(op, (256, 512, 512))
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    public = "forward.py" if op in ("sigmoid", "dense_sigmoid") else "backward.py"
    assert files == {public, "calls.py", "gpu/bound.py", "gpu/memory.py"}


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, where no address comes twice")
@pytest.mark.parametrize("op", ["matmul_backward", "dense_sigmoid_backward"])
def test_tensor_maps_are_looked_up_for_new_addresses_alone(op):
    """None in a call on the memory of the one before, which CuPy's pool gives again."""
    import cupy

    def lookups() -> int:
        found = tensor_maps.encode.cache_info()
        return found.hits + found.misses

    call = repeated(op, (256, 512, 512))
    before = lookups()
    call()
    assert lookups() == before
    cupy.get_default_memory_pool().free_all_blocks()
    call()
    assert lookups() > before


def fastest(call: Callable[[], Any], blocks: int = 40, calls: int = 25) -> float:
    """Time blocks of calls; seconds a call of the fastest."""
    taken = []
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        taken.append((time.perf_counter() - start) / calls)
    return min(taken)


@pytest.mark.parametrize("size", [LAYER, (256, 512, 512)], ids=str)
@pytest.mark.parametrize("op", OPERATIONS)
def test_time_of_a_repeated_call(op, size):
    """Within the target, with a margin; and a fraction of a call that is planned anew."""
    call = repeated(op, size)
    anew = planned_anew(call)
    again = fastest(call)
    assert again < MARGIN * TARGET
    assert again < anew / 4


def planned_anew(call: Callable[[], Any]) -> float:
    def anew() -> None:
        cache.clear()
        call()

    return fastest(anew, blocks=5)


# ---- the measurement


@pytest.mark.slow
@pytest.mark.gpu
def test_the_command(tmp_path, capsys):
    path = tmp_path / "cost.json"
    assert host_cost.main(["--quick", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    assert document["kind"] == host_cost.KIND
    assert document["gpu"].endswith("(played)") == (not ON_A_GPU)
    assert {row["op"] for row in document["rows"]} == set(OPERATIONS)
    for row in document["rows"]:
        times = row["seconds"]
        assert list(times) == list(host_cost.CALLS)
        assert 0 < times["repeated"]["median"] < times["planned anew"]["median"]
    said = capsys.readouterr().out
    assert "dense_sigmoid_backward  256x64x64" in said
    assert document["gpu"] in said
    assert measured.host_costs([document]).count("| `") == len(host_cost.rows())


@pytest.mark.gpu
def test_the_section():
    one = section.Section(quick=True, deadline=time.monotonic() + 60)
    host_cost.work(one)
    assert one.unfinished == ""
    assert "planned anew" in one.summary
    assert len(one.data["rows"]) == len(host_cost.rows())
    op, size = host_cost.rows()[-1]
    assert one.running == f"{op} {'x'.join(map(str, size))}"
    assert report.host(one.data).count("\n") == 1 + len(host_cost.rows())
    late = section.Section(quick=True, deadline=time.monotonic() - 1)
    host_cost.work(late)
    assert late.unfinished == f"no time for {len(host_cost.rows())} rows"
    assert report.host(late.data) == ""


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: "there is no NVIDIA driver")
    assert host_cost.main(["--output", str(tmp_path / "cost.json")]) == 2
    assert "there is no NVIDIA driver; or let one be played" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
