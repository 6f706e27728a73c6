"""The interleaved timer: candidates are timed in rounds, so that drifts affect all alike."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from gpugrad.benchmark.samples import Summary, summarize
from gpugrad.benchmark.stopwatch import Stopwatch

SAMPLE_SECONDS = 5e-3  # short calls are repeated until a sample takes about this long
MAX_GPU_CALLS = 100  # of a sample on a GPU: its launches have to fit into the device's queue
MIN_ROUNDS = 3
REST_SECONDS = 0.12  # before a sample: OpenBLAS's threads spin for 0.1 s after their last work
SHORT_SECONDS = 0.02  # shorter calls are made before a sample too, to wake up what has slept,
WARM_SECONDS = 0.01  # for as long


@dataclass
class Candidate:
    """An implementation that is timed.

    Attributes
    ----------
    name : str
    call : function
    device : {"cpu", "gpu"}
        Whose clock measures the time: the host's, or events on the current stream.
    within : function
        A context for calls, entered outside of what is timed.
    warm : bool
        Whether it has been called before: has compiled, has filled its pools.
    operations : int
        That one call makes: more than one where it replays a graph.
    samples, host : list of float
        Seconds an operation, one for each round: on the device, and until the host has launched
        it.
    """

    name: str
    call: Callable[[], object]
    device: str = "cpu"
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    warm: bool = False
    operations: int = 1
    samples: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    @property
    def summary(self) -> Summary:
        """Median and quartiles."""
        return summarize(self.samples)

    def take(self, watch: Stopwatch, calls: int = 1) -> None:
        """Time so many calls as one sample."""
        with watch:
            for _ in range(calls):
                self.call()
        self.samples.append(watch.last / calls / self.operations)
        self.host.append(watch.host / calls / self.operations)


@dataclass(frozen=True)
class TimeBudget:
    """How long to measure.

    Attributes
    ----------
    rounds : int
        At most.
    seconds : float
        After which no further round begins,
    min_rounds : int
        once there are so many.
    rests : bool
        Whether the machine rests before a sample: candidates have threads of their own.
    """

    rounds: int
    seconds: float
    min_rounds: int = MIN_ROUNDS
    rests: bool = True


def rotating(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """Return a call that makes the next of these each time, such as one for each operand set."""
    following = itertools.cycle(calls)
    return lambda: next(following)()


def prepared(prepare: Callable[[], object]) -> AbstractContextManager[Any]:
    """Prepare calls, outside of what is timed: a context for `Candidate.within`."""
    prepare()
    return nullcontext()


def interleave(candidates: Sequence[Candidate], budget: TimeBudget) -> int:
    """Warm up, then take samples in rounds; what was sampled before Ctrl-C is kept.

    Returns
    -------
    int
        Rounds.
    """
    rest = REST_SECONDS if budget.rests else 0.0
    runs = []
    for one in candidates:
        watch = Stopwatch(one.device)
        with one.within():
            if not one.warm:
                one.call()
            time.sleep(rest)
            one.take(watch)
            short = watch.last < SHORT_SECONDS
            if short:  # the first round's sample is a longer one
                one.samples.clear()
                one.host.clear()
                _wake(one)
                with watch:
                    one.call()
        calls = max(1, math.ceil(SAMPLE_SECONDS / max(watch.last, 1e-6)))
        runs.append(
            (one, watch, min(calls, MAX_GPU_CALLS) if one.device == "gpu" else calls, short)
        )
    start, rounds = time.perf_counter(), 0
    while rounds < budget.rounds:
        if rounds >= budget.min_rounds and time.perf_counter() - start > budget.seconds:
            break
        # Alternately reversed, so that a drift within rounds affects all alike too.
        for one, watch, calls, short in runs if rounds % 2 == 0 else reversed(runs):
            if len(one.samples) > rounds:
                continue
            time.sleep(rest)
            with one.within():
                if short:
                    _wake(one)
                one.take(watch, calls)
        rounds += 1
    return rounds


def _wake(candidate: Candidate) -> None:
    """Make calls until what has slept, threads and clocks, is awake."""
    end = time.perf_counter() + WARM_SECONDS
    calls = 0
    while time.perf_counter() < end and (candidate.device == "cpu" or calls < MAX_GPU_CALLS):
        candidate.call()
        calls += 1
