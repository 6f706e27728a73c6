"""The pipeline of kernels/gemm_wgmma.cuh: what its threads do, and that no schedule breaks it.

What the kernel's threads ask of mbarriers, recorded, is what the agents of the model do. The model
is searched: every schedule of small pipelines, random ones of larger.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from gpugrad.planning.configurations import WGMMA
from tests.conftest import needs_compiler

from .pipeline_model import BrokenError, Protocol, Search, Step
from .recording import KINDS, Recording, of_planes

ONE, COLUMN, SQUARE = (1, 1), (2, 1), (2, 2)


# ---- the model


def run_random_schedules(search: Search, count: int) -> None:
    for seed in range(count):
        search.random_schedule(seed)


@pytest.mark.parametrize(
    ("shape", "stages", "tiles", "warps", "one_plane"),
    [
        (ONE, 2, (3, 2), 2, True),
        (ONE, 2, (3, 2), 2, False),
        (ONE, 3, (4, 3), 3, True),
        (COLUMN, 2, (3, 2), 2, True),
        (COLUMN, 2, (3, 2), 2, False),
        (COLUMN, 3, (4,), 1, True),
        (SQUARE, 2, (3,), 1, True),
        (SQUARE, 1, (2, 1), 1, False),
    ],
)
def test_every_schedule(
    shape: tuple[int, int],
    stages: int,
    tiles: tuple[int, ...],
    warps: int,
    one_plane: bool,
) -> None:
    protocol = Protocol(shape, stages, tiles, warps, one_plane)
    assert Search(protocol, late=shape == ONE).every_schedule() > 100


@pytest.mark.parametrize("shape", [COLUMN, COLUMN[::-1]])
def test_every_landing(shape: tuple[int, int]) -> None:
    """Of parts and arrivals in a cluster, with a ring of one stage."""
    protocol = Protocol(shape, 1, (2, 1), 2, one_plane=False)
    assert Search(protocol).every_schedule() > 1000


@pytest.mark.parametrize("one_plane", [True, False])
@pytest.mark.parametrize("shape", [ONE, COLUMN, SQUARE])
def test_random_schedules(shape: tuple[int, int], one_plane: bool) -> None:
    run_random_schedules(Search(Protocol(shape, 3, (5, 1, 4), 2, one_plane)), 20)


def test_random_schedules_of_the_kernel_in_full() -> None:
    run_random_schedules(Search(Protocol(SQUARE, 6, (9, 7), 8, True)), 3)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no wait for empty stages": ({"waits_for_empty": False}, "another phase"),
    "no wait for full stages": ({"waits_for_full": False}, "not whole"),
    "an arrival too many": ({"arrivals": 1}, "all wait"),
    "an arrival too few": ({"arrivals": -1}, "overwritten"),
    "the producer's parity stays": ({"producer_flips": False}, "another phase"),
    "the consumers' parity stays": ({"consumers_flip": False}, "not whole"),
    "bytes too many": ({"bytes": 4}, "all wait"),
    "bytes too few": ({"bytes": -4}, "beyond those that are expected"),
    "bytes of the own parts": ({"bytes": -16}, "not whole"),
    "stages are released while they are read": ({"finishes_first": False}, "overwritten"),
    "only the own CTA hears of empty stages": ({"tells_others": False}, "all wait"),
    "parts are not multicast": ({"multicasts": False}, "all wait"),
    "the cluster does not start together": ({"starts_together": False}, "not initialised"),
    "the end waits for nobody": ({"drained": 0}, "has ended"),
    "the end waits for the first stage alone": ({"drained": 1}, "has ended"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    protocol = replace(Protocol(SQUARE, 2, (3,), 1), **changes)
    with pytest.raises(BrokenError, match=message):
        Search(protocol, late=False).every_schedule()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found_by_random_schedules(mistake: str) -> None:
    changes, _ = MISTAKES[mistake]
    search = Search(replace(Protocol(COLUMN, 3, (5, 4), 2), **changes))
    with pytest.raises(BrokenError):
        run_random_schedules(search, 20)


# ---- the kernel


class Event(NamedTuple):
    """What a thread did with an mbarrier; see recorded_kernel.h."""

    kind: str
    barrier: int
    value: int
    blocks: int


Action = tuple[str, int, object]  # a step's kind, stage and parity; of a release, the CTAs


def record(tile: int, planes: int, tiles: int, fills: int) -> tuple[Recording, Protocol]:
    """Return a kernel that has several tiles for each CTA of a cluster, and a model of it."""
    one = next(one for one in WGMMA[planes] if tile == one.BLOCK_N)
    down, across = one.cluster
    shape = (128 * down * tiles, tile * across, fills * one.BLOCK_K)
    recording = of_planes("wgmma", tile, planes, "KM", shape, multiprocessors=down * across)
    return recording, Protocol((down, across), one.STAGES, (fills,) * tiles, 8, planes == 1)


def events_of(recording: Recording) -> dict[int, dict[int, list[Event]]]:
    """Return the events of each CTA's threads."""
    found: dict[int, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for block, thread, kind, *rest in recording.events.tolist():
        found[block][thread].append(Event(KINDS[kind], *rest))
    return found


def require_followed(recording: Recording, protocol: Protocol) -> None:
    """Assert that the kernel's threads do what the agents of a protocol do."""
    ctas = events_of(recording)
    assert sorted(ctas) == list(range(protocol.ctas))
    brought = [[0] * sum(protocol.tiles) for _ in ctas]  # bytes of each fill
    expected: list[list[int]] = [[] for _ in ctas]
    for cta, threads in ctas.items():
        everything = [event for own in threads.values() for event in own]
        arrivals = {one.barrier: one.value for one in everything if one.kind == "init"}
        full = sorted({one.barrier for one in everything if one.kind == "expect"})
        empty = sorted(arrivals.keys() - full)
        assert [arrivals[barrier] for barrier in full] == [1] * protocol.stages
        assert [arrivals[barrier] for barrier in empty] == [protocol.expected[0]] * protocol.stages
        stages = {barrier: i for ring in (full, empty) for i, barrier in enumerate(ring)}

        (producer,) = [own for own in threads.values() if any(e.kind == "load" for e in own)]
        model, *warps = [steps for of, steps in protocol.agents if of == cta]
        assert producer_actions(producer, stages) == actions(model, protocol, cta)
        expected[cta] = [event.value for event in producer if event.kind == "expect"]
        fill = -1
        for event in producer:
            fill += event.kind == "expect"
            for to in range(protocol.ctas) if event.kind == "load" else ():
                brought[to][fill] += event.value * (event.blocks >> to & 1)

        own = recording.products[recording.products["block"] == cta]["thread"]
        consumers = sorted({int(thread) // 32 for thread in own})
        assert len(consumers) == len(warps)
        for warp, steps in zip(consumers, warps, strict=True):
            lanes = [threads[32 * warp + lane] for lane in range(32)]
            assert consumer_actions(lanes, stages) == actions(steps, protocol, cta)
    assert expected == brought


def actions(steps: tuple[Step, ...], protocol: Protocol, cta: int) -> list[Action]:
    """Return what a thread shows of the steps of an agent.

    That a warp finishes reading before it releases, the emulator holds: it sees operands that are
    overwritten while a product may read them.
    """
    hidden = {"start", "finish", *(["sync"] if protocol.ctas == 1 else [])}
    return [
        (step.kind, step.stage, protocol.released[cta] if step.kind == "release" else step.parity)
        for step in steps
        if step.kind not in hidden
    ]


def producer_actions(events: list[Event], stages: dict[int, int]) -> list[Action]:
    """Of the thread that loads: a wait before bytes are expected is part of a fill."""
    found: list[Action] = []
    for event in events:
        stage = stages.get(event.barrier, 0)
        if event.kind == "sync":
            found.append(("sync", 0, 0))
        elif event.kind == "wait":
            found.append(("drain", stage, event.value))
        elif event.kind == "expect":
            kind, waited, parity = found.pop()
            assert (kind, waited) == ("drain", stage)
            found.append(("fill", stage, parity))
        elif event.kind == "load" and found[-1] != ("load", stage, 0):
            found.append(("load", stage, 0))
    return found


def consumer_actions(lanes: list[list[Event]], stages: dict[int, int]) -> list[Action]:
    """Of a warp, all of whose lanes wait; other lanes release it to other CTAs."""
    waits: list[list[Action]] = []
    arrivals: dict[tuple[int, int], list[int]] = defaultdict(list)
    order: dict[tuple[int, int], int] = {}
    for events in lanes:
        own: list[Action] = []
        for event in events:
            if event.kind == "arrive":
                release = (len(own), stages[event.barrier])
                arrivals[release].append(event.value)
                order.setdefault(release, len(order))
            else:
                kind = {"wait": "take", "sync": "sync"}[event.kind]
                own.append((kind, stages.get(event.barrier, 0), event.value))
        waits.append(own)
    assert all(own == waits[0] for own in waits)
    found: list[Action] = []
    for i in range(len(waits[0]) + 1):
        after = sorted((one for one in arrivals if one[0] == i), key=lambda one: order[one])
        found += [("release", stage, tuple(sorted(arrivals[i, stage]))) for _, stage in after]
        found += waits[0][i : i + 1]
    return found


@pytest.fixture(
    scope="module", params=[(64, 1, 2, 7), (128, 1, 1, 7), (128, 3, 2, 3), (256, 1, 2, 5)]
)
def kernel(request: pytest.FixtureRequest) -> tuple[Recording, Protocol]:
    needs_compiler()
    return record(*request.param)


def test_kernel_follows_the_model(kernel: tuple[Recording, Protocol]) -> None:
    require_followed(*kernel)


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals": 1},
        {"waits_for_empty": False},
        {"producer_flips": False},
        {"consumers_flip": False},
        {"stages": 3},
        {"warps": 7},
        {"tiles": (3, 3)},
        {"drained": 1},
    ],
    ids=str,
)
def test_kernel_follows_no_other(
    kernel: tuple[Recording, Protocol], changes: dict[str, Any]
) -> None:
    recording, protocol = kernel
    changed = replace(protocol, **changes)
    if changed.agents != protocol.agents or changed.expected != protocol.expected:
        with pytest.raises(AssertionError):
            require_followed(recording, changed)
