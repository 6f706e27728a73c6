"""Time on the device and on the host, of contestants that take turns in one run.

A sample is a block of calls between two events, long enough that the events' own resolution and
the start of an idle device do not matter. Each call takes the next set of operands.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gpugrad.benchmark.samples import Summary, summarize, turns

BLOCK_SECONDS = 2e-3  # of a sample, at least
MAX_CALLS = 100  # of a sample: what they launch has to fit into the device's queue
MIN_ROUNDS, MAX_ROUNDS = 7, 60
WARM_UP = 3  # calls


@dataclass
class Contestant:
    """Somebody's way to do the work.

    Attributes
    ----------
    name : str
    calls : list of functions
        One for each set of operands.
    prepare : function
        Called before each block, outside of what is timed.
    operations : int
        That one call makes: more than one where it replays a graph.
    host, device : list of float
        Samples, seconds an operation.
    """

    name: str
    calls: Sequence[Callable[[], Any]]
    prepare: Callable[[], None] = lambda: None
    operations: int = 1
    device: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    def times(self) -> dict[str, Any]:
        """Summarise the samples for JSON: seconds an operation, on the device and on the host."""
        return {
            "device": asdict(summarize(self.device)),
            "host": asdict(summarize(self.host)),
        }


def calls_in_a_block(seconds_a_call: float) -> int:
    """Choose how many calls make a sample."""
    wanted = math.ceil(BLOCK_SECONDS / max(seconds_a_call, 1e-9))
    return max(1, min(wanted, MAX_CALLS))


def measure(
    contestants: Sequence[Contestant],
    seconds: float,
    block: "Callable[[Contestant, int, int], tuple[float, float]] | None" = None,
) -> int:
    """Let contestants take turns until the time is over, and keep their samples.

    Parameters
    ----------
    contestants : sequence of Contestant
        Warmed up and timed; their samples are replaced.
    seconds : float
        After which no round is begun, once there are `MIN_ROUNDS`.
    block : function, optional
        Times so many calls from a place in the rotation; for tests without a GPU.

    Returns
    -------
    int
        Rounds.
    """
    block = block or on_device
    sizes = []
    places = [0] * len(contestants)
    for index, one in enumerate(contestants):
        one.device, one.host = [], []
        block(one, 0, WARM_UP)
        sizes.append(calls_in_a_block(block(one, WARM_UP, WARM_UP)[0] / WARM_UP))
        places[index] = 2 * WARM_UP
    start, rounds = time.perf_counter(), 0
    while rounds < MAX_ROUNDS:
        if rounds >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        for index in turns(len(contestants), rounds):
            one, size = contestants[index], sizes[index]
            on_gpu, on_host = block(one, places[index], size)
            places[index] += size
            one.device.append(on_gpu / size / one.operations)
            one.host.append(on_host / size / one.operations)
        rounds += 1
    return rounds


def on_device(contestant: Contestant, place: int, count: int) -> tuple[float, float]:
    """Time a block of calls; seconds on the device and until the host had launched it."""
    import cupy

    calls = contestant.calls
    contestant.prepare()
    stream = cupy.cuda.get_current_stream()
    before, after = cupy.cuda.Event(), cupy.cuda.Event()
    stream.synchronize()
    start = time.perf_counter()
    before.record(stream)
    for index in range(place, place + count):
        calls[index % len(calls)]()
    after.record(stream)
    host = time.perf_counter() - start
    after.synchronize()
    return 1e-3 * cupy.cuda.get_elapsed_time(before, after), host


def copy_bandwidth(size: int = 1 << 30, count: int = 15) -> Summary:
    """Measure the device's copy bandwidth: bytes read plus bytes written a second."""
    import cupy

    pairs = [(cupy.ones(size, "u1"), cupy.empty(size, "u1")) for _ in range(2)]
    kind = cupy.cuda.runtime.memcpyDeviceToDevice

    def copy(source: Any, target: Any) -> Callable[[], None]:
        def call() -> None:
            stream = cupy.cuda.get_current_stream()
            cupy.cuda.runtime.memcpyAsync(target.data.ptr, source.data.ptr, size, kind, stream.ptr)

        return call

    one = Contestant("copy", [copy(*pair) for pair in pairs])
    on_device(one, 0, WARM_UP)
    rates = [2 * size * 4 / on_device(one, 4 * index, 4)[0] for index in range(count)]
    return summarize(rates)
