"""Contestants that take turns, so that drifts of the machine hit all of them alike."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from gpugrad.benchmark.samples import Summary, summarize, turns
from gpugrad.benchmark.stopwatch import Stopwatch

SAMPLE_SECONDS = 5e-3  # short calls are repeated until a sample takes about this long
MIN_ROUNDS = 3
REST_SECONDS = 0.12  # before a turn: OpenBLAS's threads spin for 0.1 s after their last work
SHORT_SECONDS = 0.02  # shorter calls are made before a sample too, to wake up what has slept,
WARM_SECONDS = 0.01  # for as long


@dataclass
class Contestant:
    """Somebody's way to do some work.

    Attributes
    ----------
    name : str
    call : function
    device : {"cpu", "gpu"}
        Whose clock tells the time.
    within : function
        A context for calls, entered outside of what is timed.
    warm : bool
        Whether it has been called before: has compiled, has filled its pools.
    samples : list of float
        Seconds a call, one for each round.
    """

    name: str
    call: Callable[[], object]
    device: str = "cpu"
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    warm: bool = False
    samples: list[float] = field(default_factory=list)

    @property
    def summary(self) -> Summary:
        """Median and quartiles."""
        return summarize(self.samples)


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds at most, and seconds after which no further round begins."""

    rounds: int
    seconds: float


def take_turns(contestants: Sequence[Contestant], effort: Effort) -> None:
    """Warm up, then take samples in rounds; what was sampled before Ctrl-C is kept."""
    runs = []
    for one in contestants:
        watch = Stopwatch(one.device)
        with one.within():
            if not one.warm:
                one.call()
            time.sleep(REST_SECONDS)
            with watch:
                one.call()
            short = watch.last < SHORT_SECONDS
            if short:
                _wake(one)
                with watch:
                    one.call()
        calls = max(1, math.ceil(SAMPLE_SECONDS / max(watch.last, 1e-6)))
        if not short:  # the first round's sample
            one.samples.append(watch.last)
        runs.append((one, watch, calls, short))
    start = time.perf_counter()
    for round_ in range(effort.rounds):
        if round_ >= MIN_ROUNDS and time.perf_counter() - start > effort.seconds:
            break
        for index in turns(len(runs), round_):
            one, watch, calls, short = runs[index]
            if len(one.samples) > round_:
                continue
            time.sleep(REST_SECONDS)
            with one.within():
                if short:
                    _wake(one)
                with watch:
                    for _ in range(calls):
                        one.call()
            one.samples.append(watch.last / calls)


def _wake(contestant: Contestant) -> None:
    """Make calls until what has slept, threads and clocks, is awake."""
    end = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < end:
        contestant.call()
