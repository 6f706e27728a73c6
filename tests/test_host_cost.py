"""What a repeated call on CuPy arrays costs the host: its work counted, and its time with a margin.

Where there is no GPU the driver is played by bench/no_driver.py, which says what that leaves out.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gpugrad
from bench import host_cost, measured, no_driver, report, section
from gpugrad._operations import OPERATIONS
from gpugrad.cli import operations
from tests.conftest import ON_A_GPU, needs_gpu

LAYER = (256, 64, 64)
TARGET = 12e-6  # seconds of dense_sigmoid_backward, on a machine that does nothing else
MARGIN = 5  # of a machine that runs other tests meanwhile
# Calls of functions in a repeated call, the stand-ins and itself included. They are what the time
# goes to: more of them need a reason.
CALLS = {
    "matmul_backward": 28,
    "bias_backward": 26,
    "sigmoid_backward": 22,
    "sigmoid_bias_backward": 32,
    "dense_sigmoid_backward": 36,
    "sigmoid": 20,
    "dense_sigmoid": 22,
}


@pytest.fixture
def no_gpu() -> Iterator[no_driver.Driver]:
    with no_driver.stand_ins() as driver:
        yield driver


def repeated(op: str, size: tuple[int, int, int] = LAYER, **options: Any) -> Callable[[], Any]:
    """Give a call that has been remembered."""
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
def test_calls_that_a_repeated_call_makes(no_gpu, op):
    names = calls_in(repeated(op))
    assert "launch" in names
    assert len(names) <= CALLS[op], names


@pytest.mark.parametrize("op", OPERATIONS)
def test_nothing_is_checked_or_planned(no_gpu, op):
    names = calls_in(repeated(op))
    assert not {"__enter__", "run", "decide", "choose", "kernel", "expect_operands"} & set(names)


@pytest.mark.parametrize("op", ["matmul_backward", "dense_sigmoid_backward"])
def test_tensor_maps_are_looked_up_for_new_addresses_alone(no_gpu, op):
    """Two of each product's operands; none in a call on the memory of the one before."""
    call = repeated(op, (256, 512, 512))
    assert calls_in(call).count("encoded") == 4
    no_gpu.gives_back = True
    call()  # in memory that comes back from now on
    assert calls_in(call).count("encoded") == 0
    no_gpu.gives_back = False
    assert calls_in(call).count("encoded") == 4


def test_memory_comes_back_as_that_of_cupys_pool():
    driver = no_driver.Driver()
    first, second = driver.allocate(100), driver.allocate(100)
    assert second.ptr == first.ptr + no_driver.ALIGNMENT
    del first
    assert driver.allocate(100).ptr > second.ptr  # as long as it is not asked to
    driver.gives_back = True
    held, larger = driver.allocate(1), driver.allocate(513)
    where = held.ptr
    assert where > second.ptr
    del held
    assert driver.allocate(512).ptr == where
    once_more = [driver.allocate(512) for _ in range(2)]
    assert once_more[0].ptr == where  # it had come back
    assert once_more[1].ptr > larger.ptr


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
def test_time_of_a_repeated_call(no_gpu, op, size):
    """Within the target, with a margin; and a fraction of a call that is planned anew."""
    call = repeated(op, size)
    anew = planned_anew(call)
    again = fastest(call)
    assert again < MARGIN * TARGET
    assert again < anew / 4


def planned_anew(call: Callable[[], Any]) -> float:
    from gpugrad import _repeats

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_repeats, "find_on_gpu", lambda *_: (None, None))
        return fastest(call, blocks=5)


@needs_gpu
@pytest.mark.parametrize("op", OPERATIONS)
def test_time_on_a_gpu(op):
    """With the driver's part, of calls that do not wait for the device."""
    import cupy

    call = repeated(op)
    stream = cupy.cuda.get_current_stream()
    taken = []
    for _ in range(20):
        stream.synchronize()
        start = time.perf_counter()
        for _ in range(25):
            call()
        taken.append((time.perf_counter() - start) / 25)
    assert min(taken) < MARGIN * TARGET


# ---- the measurement


@pytest.mark.gpu
def test_the_command(tmp_path, capsys):
    path = tmp_path / "cost.json"
    assert host_cost.main(["--quick", "--output", str(path)]) == 0
    document = json.loads(path.read_text())
    assert document["kind"] == host_cost.KIND
    assert document["on_gpu"] == ON_A_GPU
    assert {row["op"] for row in document["rows"]} == set(OPERATIONS)
    for row in document["rows"]:
        times = row["seconds"]
        assert list(times) == [*host_cost.WAYS, *([] if ON_A_GPU else [host_cost.ELSEWHERE])]
        assert 0 < times["repeated"]["median"] < times["planned anew"]["median"]
    said = capsys.readouterr().out
    assert "dense_sigmoid_backward  256x64x64" in said
    assert ("there is no GPU" in said) == (not ON_A_GPU)
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


def test_without_cupy_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(host_cost, "installed", lambda name: False)
    assert host_cost.main(["--output", str(tmp_path / "cost.json")]) == 2
    assert "CuPy is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
