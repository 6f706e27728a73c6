"""What was measured, as the JSON document that tables and figures are made from."""

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpugrad.benchmark.load import Load
from gpugrad.benchmark.measure import Entry, Measured
from gpugrad.benchmark.samples import ratio


@dataclass
class Findings:
    """All that one run of the command finds.

    Attributes
    ----------
    environment : dict
    measured : list of Measured
    rooflines, rows, stages : list of dict
        For the figures; from roofline.py, rows.py and stages.py.
    rows_of : dict
        The layer whose rows vary: op, dtype, k, m.
    load : Load
        Of other processes.
    stopped : str or None
        Why there is not more.
    """

    environment: dict[str, Any]
    measured: list[Measured] = field(default_factory=list)
    rooflines: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    rows_of: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    stopped: str | None = None

    def spreads(self) -> list[float]:
        """Return the spreads of all that was timed more than twice."""
        timed = [one.candidate.summary for case in self.measured for one in case.entries]
        return [one.spread for one in timed if one.count > 2]

    def document(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "stopped": self.stopped,
            "environment": self.environment,
            "load": self.load.document(),
            "results": [one for case in self.measured for one in results(case)],
            "left_out": [
                {**described(case), "what": what, "reason": reason}
                for case in self.measured
                for what, reason in case.left_out.items()
            ],
            "rooflines": self.rooflines,
            "rows": {**self.rows_of, "points": self.rows} if self.rows else None,
            "stages": self.stages,
        }


def described(measured: Measured) -> dict[str, Any]:
    """Return what identifies a case."""
    case, (n, k, m) = measured.case, measured.case.size
    return {
        "op": case.op,
        "dtype": case.dtype,
        "precision": case.precision,
        "preset": case.preset,
        "n": n,
        "k": k,
        "m": m,
    }


def results(measured: Measured) -> Iterator[dict[str, Any]]:
    """Return a dict for each candidate that was timed: time, rates, errors, and ratios to peers."""
    timed = [one for one in measured.entries if one.candidate.samples]
    for one in timed:
        summary = one.candidate.summary
        seconds = summary.median
        found = {
            **described(measured),
            "what": one.candidate.name,
            "role": one.role,
            "device": one.place,
            "seconds": seconds,
            "quartiles": [summary.low, summary.high],
            "samples": summary.count,
            "bytes": one.bytes,
            "flops": one.flops,
            "gb_per_second": 1e-9 * one.bytes / seconds,
            "gflop_per_second": 1e-9 * one.flops / seconds,
        }
        if one.role != "copy":
            found |= {"error": worst(one.errors), "errors": one.errors}
        if one.role == "gpugrad":
            peers = [other for other in timed if other.role == "peer"]
            found["ratios"] = {other.candidate.name: _ratio(other, one) for other in peers}
        yield found


def worst(errors: Mapping[str, float]) -> float | None:
    """Return the largest error, NaN if there is one, or None without any."""
    values = list(errors.values())
    return math.nan if any(map(math.isnan, values)) else max(values, default=None)


def _ratio(other: Entry, ours: Entry) -> dict[str, Any]:
    """Return how many times longer another takes: of the medians, and its spread over rounds."""
    theirs, own = other.candidate, ours.candidate
    by_round = asdict(ratio(theirs.samples, own.samples))
    return {
        "ratio": theirs.summary.median / own.summary.median,
        "quartiles": [by_round["low"], by_round["high"]],
    }
