"""A case measured: each candidate's errors against a more precise reference, and its times."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpugrad.benchmark.cases import Case
from gpugrad.benchmark.peers import Peer, on_host
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave
from gpugrad.testing import operations
from gpugrad.testing.verification import Answers, answers, errors, verify

OURS = {"cpu": "gpugrad CPU", "gpu": "gpugrad GPU"}


@dataclass
class Entry:
    """A candidate of a case.

    Attributes
    ----------
    candidate : Candidate
    role : {"gpugrad", "peer", "copy"}
    place : {"cpu", "gpu"}
        Where the work is done.
    bytes, flops : float
        That one call moves at least, and computes.
    errors : dict
        By result, max |error| / max |exact|.
    """

    candidate: Candidate
    role: str
    place: str
    bytes: int
    flops: float
    errors: dict[str, float] = field(default_factory=dict)


@dataclass
class Measured:
    """What was measured of a case: its candidates, and what was left out and why."""

    case: Case
    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> Entry | None:
        """Find a candidate."""
        return next((one for one in self.entries if one.candidate.name == name), None)


def measure(
    measured: Measured, places: Sequence[str], peers: Sequence[Peer], budget: TimeBudget
) -> None:
    """Measure a case; what there is before Ctrl-C is in `measured`.

    Raises
    ------
    Failed
        A result of the library is wrong.
    """
    case = measured.case
    dtype = operations.dtype_of(case.dtype)
    drawn = operations.consistent_arrays(case.op, case.size, dtype, seed=0)
    operands = {name: drawn[name] for name in operations.shapes(case.op, case.size)}
    known = answers(case.op, operands, {})
    if "cpu" in places:
        call = functools.partial(operations.call, case.op, operands, device="cpu", **case.options)
        _enter_ours(measured, call, "cpu", call(), known)
    _enter_peers(measured, peers, drawn, "cpu", known)
    if "gpu" in places:
        _enter_gpu(measured, operands, drawn, peers, known)
    interleave([one.candidate for one in measured.entries], budget)


def _enter_gpu(
    measured: Measured,
    operands: Mapping[str, Any],
    drawn: Mapping[str, Any],
    peers: Sequence[Peer],
    known: Answers,
) -> None:
    import cupy

    case, problem = measured.case, measured.case.problem
    near = {name: cupy.asarray(one) for name, one in drawn.items()}
    given = {name: near[name] for name in operands}
    call = functools.partial(operations.call, case.op, given, device="gpu", **case.options)
    results = call()

    def copy_in() -> object:
        return [cupy.asarray(one) for one in operands.values()]

    def copy_back() -> operations.Arrays:
        return {name: one.get() for name, one in results.items()}

    planes = operations.planes(case.op, given, device="gpu", **case.options)
    bounds = answers(case.op, dict(operands), planes) if any(planes.values()) else known
    _enter_ours(measured, call, "gpu", copy_back(), bounds)
    _enter_peers(measured, peers, near, "gpu", known)
    for name, copy, moved in (
        ("copy to GPU", copy_in, problem.bytes_in),
        ("copy back", copy_back, problem.bytes_out),
    ):
        candidate = Candidate(name, copy, "gpu")
        measured.entries.append(Entry(candidate, "copy", "gpu", moved, 0))


def _enter_ours(
    measured: Measured,
    call: Callable[[], object],
    place: str,
    results: operations.Arrays,
    known: Answers,
) -> None:
    case, problem = measured.case, measured.case.problem
    verify(case.op, results, known, place.upper())
    moved = problem.bytes_in + problem.bytes_out
    candidate = Candidate(OURS[place], call, place, warm=True)
    found = errors(results, known)
    measured.entries.append(Entry(candidate, "gpugrad", place, moved, problem.flops, found))


def _enter_peers(
    measured: Measured,
    peers: Sequence[Peer],
    operands: Mapping[str, Any],
    place: str,
    known: Answers,
) -> None:
    """Enter all implementations of all peers; one that raises is left out, with its reason."""
    case, problem = measured.case, measured.case.problem
    moved = problem.bytes_in + problem.bytes_out
    for peer in peers:
        try:
            for found in peer.implementations(case.op, operands, place):
                with found.within():
                    results = on_host(case.op, found, found.call())
                off = errors({name: np.asarray(one) for name, one in results.items()}, known)
                candidate = Candidate(found.name, found.call, found.device, found.within, warm=True)
                entry = Entry(candidate, "peer", place, moved, problem.flops, off)
                measured.entries.append(entry)
        except MemoryError:
            raise
        except Exception as error:  # whatever a framework raises for what it cannot do
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            measured.left_out[peer.title] = reason[:300]
