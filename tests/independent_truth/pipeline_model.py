"""A model of the pipeline of kernels/gemm_wgmma.cuh, and searches through its schedules.

Each CTA of a cluster has a producer and consumer warps, which pass stages on by two
mbarriers a stage. Each of them is a list of steps. What they send to mbarriers and to
shared memory, of their own CTA too, lands at any time and in any order. A schedule that breaks a
rule raises `BrokenError`.

A step is one action, or several whose interruption nothing could observe.
So a consumer begins to read a stage in the step that finds it full: whatever would land in
between lands on a stage that is read.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

LEFT_BYTES, RIGHT_BYTES = 12, 20  # of a stage, of the tile of A and of that of B


class BrokenError(Exception):
    """A schedule in which the protocol fails."""


class Step(NamedTuple):
    """One action of an agent on a stage.

    start     initialise the mbarriers
    together  wait for the other agents of the CTA
    sync      wait for all of the cluster, and for what they have sent to mbarriers
    fill      wait for the empty stage, unless parity is below 0; expect bytes
    load      send the parts of a stage
    drain     wait for the empty stage
    take      wait for the full stage, unless parity is below 0; begin to read it
    finish    read no more
    release   arrive at the empty stage of the CTAs that brought parts of it
    """

    kind: str
    stage: int = 0
    fill: int = 0  # which of those of the whole kernel
    parity: int = 0


class Part(NamedTuple):
    """What TMA brings at once of a stage: a bit of its own among the parts of a CTA."""

    bit: int
    bytes: int
    ctas: tuple[int, ...]


class Barrier(NamedTuple):
    """An mbarrier; bytes that came before they were expected make missing_bytes negative."""

    phase: int
    pending: int
    missing_bytes: int = 0


class Message(NamedTuple):
    """On its way to a CTA: a part of a stage, or an arrival at its empty mbarrier (no part)."""

    cta: int
    stage: int
    fill: int
    part: int
    bytes: int


class State(NamedTuple):
    """Of a cluster."""

    at: tuple[int, ...]  # each agent's next step
    started: tuple[bool, ...]  # CTAs
    full: tuple[Barrier, ...]  # CTA by CTA, stage by stage
    empty: tuple[Barrier, ...]
    held: tuple[tuple[int, int], ...]  # in each stage: the fill, and a bit for each part of it
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Protocol:
    """What a cluster of M × N CTAs does; the defaults from `drained` on are the kernel's."""

    cluster: tuple[int, int]
    stages: int
    tiles: tuple[int, ...]  # stages that each tile of a CTA has
    warps: int  # that consume, in a CTA
    one_plane: bool = True  # a stage is released when the products of the next are on their way
    drained: int | None = None  # empty stages that a producer waits for at the end; None: all
    arrivals: int = 0  # more than there are, of an empty stage
    bytes: int = 0  # the same of a full one
    waits_for_empty: bool = True
    waits_for_full: bool = True
    producer_flips: bool = True  # the parity that it waits for
    consumers_flip: bool = True
    starts_together: bool = True
    multicasts: bool = True
    tells_others: bool = True  # of stages that it has read
    finishes_first: bool = True  # reading, then releases

    @cached_property
    def ctas(self) -> int:
        return self.cluster[0] * self.cluster[1]

    @cached_property
    def expected(self) -> tuple[int, int]:
        """Return arrivals at an empty stage, and bytes of a full one."""
        down, across = self.cluster
        arrivals = (down + across - 1) * self.warps + self.arrivals
        return arrivals, LEFT_BYTES + RIGHT_BYTES + self.bytes

    def row(self, cta: int) -> tuple[int, ...]:
        """Return the CTAs that need the same tile of A."""
        return tuple(i for i in range(self.ctas) if i % self.cluster[0] == cta % self.cluster[0])

    def column(self, cta: int) -> tuple[int, ...]:
        """Return the CTAs that need the same tile of B."""
        return tuple(i for i in range(self.ctas) if i // self.cluster[0] == cta // self.cluster[0])

    def parts(self, cta: int) -> tuple[Part, Part]:
        """Return what a CTA loads of each stage."""
        down, across = self.cluster
        row, column = (self.row(cta), self.column(cta)) if self.multicasts else ((cta,), (cta,))
        return (
            Part(1 << cta // down, LEFT_BYTES // across, row),
            Part(1 << across + cta % down, RIGHT_BYTES // down, column),
        )

    @cached_property
    def whole(self) -> int:
        """Return the bits of all parts of a stage."""
        return (1 << sum(self.cluster)) - 1

    @cached_property
    def released(self) -> tuple[tuple[int, ...], ...]:
        """Return the CTAs whose stages each CTA releases."""
        if not self.tells_others:
            return tuple((cta,) for cta in range(self.ctas))
        return tuple(tuple(sorted({*self.row(c), *self.column(c)})) for c in range(self.ctas))

    @cached_property
    def agents(self) -> tuple[tuple[int, tuple[Step, ...]], ...]:
        """Return CTA and steps of every producer and every consuming warp."""
        first = Step("sync" if self.starts_together else "together")
        producer = [Step("start"), first, *self._producer()]
        consumer = [first, *self._consumer()]
        return tuple(
            (cta, tuple(steps))
            for cta in range(self.ctas)
            for steps in (producer, *[consumer] * self.warps)
        )

    def _producer(self) -> Iterator[Step]:
        fills = sum(self.tiles)
        drained = self.stages if self.drained is None else self.drained
        for fill in range(fills + drained * (self.ctas > 1)):
            turn, stage = divmod(fill, self.stages)
            parity = turn % 2 ^ 1 if self.producer_flips else 1
            if fill >= fills:
                yield Step("drain", stage, fill, parity)
                continue
            yield Step("fill", stage, fill, parity if self.waits_for_empty else -1)
            yield Step("load", stage, fill)

    def _consumer(self) -> Iterator[Step]:
        fill = 0
        for length in self.tiles:
            for k in range(length):
                turn, stage = divmod(fill, self.stages)
                parity = turn % 2 if self.consumers_flip else 0
                yield Step("take", stage, fill, parity if self.waits_for_full else -1)
                if k and self.one_plane:
                    yield from self._release(fill - 1)
                if not self.one_plane or k == length - 1:
                    yield from self._release(fill)
                fill += 1

    def _release(self, fill: int) -> Iterator[Step]:
        both = [Step(kind, fill % self.stages, fill) for kind in ("finish", "release")]
        yield from both if self.finishes_first else both[::-1]


class Search:
    """Runs schedules of a protocol.

    Parameters
    ----------
    protocol : Protocol
    late : bool
        Whether messages are apart from the steps that send them. If not, they land at once. That
        leaves all orders of steps: an agent that would wait for a late message may as well wait
        for no reason. That a late one harms nobody else is a rule of its own: none is on its way to
        a stage that is read, nor to a CTA that has ended.
    """

    def __init__(self, protocol: Protocol, *, late: bool = True) -> None:
        self.protocol = protocol
        self.late = late
        self.cta_of = [cta for cta, _ in protocol.agents]
        self.steps = [steps for _, steps in protocol.agents]
        self.syncs = [
            [i for i, step in enumerate(steps) if step.kind == "sync"] for steps in self.steps
        ]
        self.read = [list(self._stages_read(steps)) for steps in self.steps]
        warps = 1 + protocol.warps
        self.agents_of = [range(c * warps, (c + 1) * warps) for c in range(protocol.ctas)]

    @staticmethod
    def _stages_read(steps: tuple[Step, ...]) -> Iterator[frozenset[int]]:
        """Return the stages that an agent reads before each of its steps, and after all."""
        read: frozenset[int] = frozenset()
        for step in steps:
            yield read
            if step.kind == "take":
                read |= {step.stage}
            elif step.kind == "finish":
                read -= {step.stage}
        yield read

    def first_state(self) -> State:
        protocol = self.protocol
        count = protocol.ctas * protocol.stages
        return State(
            at=(0,) * len(self.steps),
            started=(False,) * protocol.ctas,
            full=(Barrier(0, 1),) * count,
            empty=(Barrier(0, protocol.expected[0]),) * count,
            held=((-1, 0),) * count,
            messages=(),
        )

    def ended(self, state: State, cta: int) -> bool:
        return all(state.at[i] == len(self.steps[i]) for i in self.agents_of[cta])

    def can_go(self, state: State, agent: int) -> bool:
        """Return whether an agent has a step and need not wait for it."""
        at = state.at[agent]
        if at == len(self.steps[agent]):
            return False
        step, cta = self.steps[agent][at], self.cta_of[agent]
        if step.kind == "together":
            return all(state.at[i] >= at for i in self.agents_of[cta])
        if step.kind == "sync":
            number = self.syncs[agent].index(at)
            arrived = (state.at[i] >= syncs[number] for i, syncs in enumerate(self.syncs))
            return all(arrived) and all(message.part for message in state.messages)
        if step.kind in ("fill", "drain", "take"):
            barriers = state.full if step.kind == "take" else state.empty
            phase = barriers[cta * self.protocol.stages + step.stage].phase
            return step.parity < 0 or phase % 2 != step.parity
        return True

    def after_step(self, state: State, agent: int) -> State:
        """Return the state after an agent's step."""
        protocol, cta = self.protocol, self.cta_of[agent]
        step = self.steps[agent][state.at[agent]]
        place = cta * protocol.stages + step.stage
        state = state._replace(at=_put(state.at, agent, state.at[agent] + 1))
        sent: list[Message] = []
        if step.kind == "start":
            state = state._replace(started=_put(state.started, cta, True))
        elif step.kind == "fill":
            barrier = self._in_phase(state.full[place], step.fill)
            barrier = barrier._replace(
                pending=barrier.pending - 1,
                missing_bytes=barrier.missing_bytes + protocol.expected[1],
            )
            state = state._replace(full=_put(state.full, place, _completed(barrier, 1)))
        elif step.kind == "load":
            sent = [
                Message(to, step.stage, step.fill, part.bit, part.bytes)
                for part in protocol.parts(cta)
                for to in part.ctas
            ]
        elif step.kind == "take" and state.held[place] != (step.fill, protocol.whole):
            raise BrokenError("a stage is read that is not whole")
        elif step.kind == "release":
            sent = [Message(to, step.stage, step.fill, 0, 0) for to in protocol.released[cta]]
        for message in sent:
            if message.cta != cta and self.ended(state, message.cta):
                raise BrokenError("a CTA that has ended is sent something")
            if self.late and (message.part or protocol.ctas > 1):
                state = state._replace(messages=tuple(sorted((*state.messages, message))))
            else:
                state = self.landed(state, message)
        if self.ended(state, cta) and any(message.cta == cta for message in state.messages):
            raise BrokenError("a CTA ends while something is on its way to it")
        return state

    def after_landing(self, state: State, index: int) -> State:
        """Return the state after a message has landed."""
        messages = state.messages[:index] + state.messages[index + 1 :]
        return self.landed(state._replace(messages=messages), state.messages[index])

    def landed(self, state: State, message: Message) -> State:
        protocol, cta, stage = self.protocol, message.cta, message.stage
        place = cta * protocol.stages + stage
        if not state.started[cta]:
            raise BrokenError("an mbarrier is not initialised")
        if not message.part:
            barrier = self._in_phase(state.empty[place], message.fill)
            barrier = barrier._replace(pending=barrier.pending - 1)
            barrier = _completed(barrier, protocol.expected[0])
            return state._replace(empty=_put(state.empty, place, barrier))
        if any(stage in self.read[i][state.at[i]] for i in self.agents_of[cta]):
            raise BrokenError("a stage is overwritten while it is read")
        fill, parts = state.held[place]
        parts = parts * (fill == message.fill)
        if parts & message.part:
            raise BrokenError("a part comes twice")
        barrier = self._in_phase(state.full[place], message.fill)
        barrier = barrier._replace(missing_bytes=barrier.missing_bytes - message.bytes)
        return state._replace(
            held=_put(state.held, place, (message.fill, parts | message.part)),
            full=_put(state.full, place, _completed(barrier, 1)),
        )

    def _in_phase(self, barrier: Barrier, fill: int) -> Barrier:
        if barrier.phase != fill // self.protocol.stages:
            raise BrokenError("an arrival or bytes of another phase")
        return barrier

    def _require_end(self, state: State) -> None:
        """Assert that all have ended, where nothing can go on."""
        if not all(self.ended(state, cta) for cta in range(self.protocol.ctas)):
            raise BrokenError("all wait")

    def every_schedule(self) -> int:
        """Search all schedules; return how many states there are, but for symmetry."""
        first = self.first_state()
        seen, left = {self._key(first)}, [first]
        while left:
            state = left.pop()
            following = [
                self.after_step(state, agent)
                for agent in range(len(self.steps))
                if self.can_go(state, agent)
            ]
            following += [self.after_landing(state, i) for i in range(len(state.messages))]
            if not following:
                self._require_end(state)
            for one in following:
                key = self._key(one)
                if key not in seen:
                    seen.add(key)
                    left.append(one)
        return len(seen)

    def _key(self, state: State) -> tuple:
        """Return what a state follows from, and alike for those that symmetry makes of it.

        What agents have done and what has not landed decides on the rest. The warps of a CTA do the
        same; rows and columns of CTAs can be exchanged.
        """
        at = state.at
        own = [(at[agents[0]], *sorted(at[i] for i in agents[1:])) for agents in self.agents_of]
        return min(
            (
                tuple(own[cta] for cta in ctas),
                tuple(sorted((ctas[m.cta], m.stage, m.fill, bits[m.part]) for m in state.messages)),
            )
            for ctas, bits in self.symmetries
        )

    @cached_property
    def symmetries(self) -> list[tuple[list[int], dict[int, int]]]:
        """Return exchanges that leave a cluster as it is: of its CTAs, and of the bits of parts."""
        down, across = self.protocol.cluster
        found = []
        for rows in {range(down), range(down)[::-1]}:
            for columns in {range(across), range(across)[::-1]}:
                ctas = [rows[i] + down * columns[j] for j in range(across) for i in range(down)]
                bits = {0: 0} | {1 << j: 1 << columns[j] for j in range(across)}
                bits |= {1 << across + i: 1 << across + rows[i] for i in range(down)}
                found.append((ctas, bits))
        return found

    def random_schedule(self, seed: int) -> None:
        """Run one schedule, in which some agents, and messages, are much slower than others."""
        draw = random.Random(seed)
        weights = [10 ** draw.uniform(-2, 0) for _ in self.steps]
        of_messages = 10 ** draw.uniform(-3, 1)
        state = self.first_state()
        while True:
            agents = [i for i in range(len(self.steps)) if self.can_go(state, i)]
            if not agents and not state.messages:
                return self._require_end(state)
            own = [weights[i] for i in agents]
            if draw.random() * (sum(own) + of_messages * len(state.messages)) < sum(own):
                state = self.after_step(state, draw.choices(agents, own)[0])
            else:
                state = self.after_landing(state, draw.randrange(len(state.messages)))


def _completed(barrier: Barrier, arrivals: int) -> Barrier:
    """Return the barrier, in its next phase if nothing of this one is missing."""
    if barrier.pending < 0 or (not barrier.pending and barrier.missing_bytes < 0):
        raise BrokenError("arrivals or bytes beyond those that are expected")
    if barrier.pending or barrier.missing_bytes:
        return barrier
    return Barrier(barrier.phase + 1, arrivals)


def _put(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])
