"""The load of other processes while something is measured, and what it does to the timings."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROC = Path("/proc")
IDLE_SECONDS = 0.5  # in which this process rests, to read the load before measuring
TICKS = 2  # of 10 ms, by which the counters of all processes and of one's own may differ
# Cores that other processes may keep busy. An idle machine's services take some hundredths of one;
# a tenth of a core already delays one thread in ten seconds by a second.
MAX_BUSY_CORES = 0.1
# Half the distance of the quartiles over the median, of half of the timings. Rounds of an idle
# machine are within some percent; where another process has a core, they differ by its time slices.
MAX_SPREAD = 0.25


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of CPU time since some moment: of all processes, of this one and its children.

    Time that a hypervisor gives to other machines ("steal") counts as that of a process.
    """

    wall: float
    all: float
    own: float


def read(proc: Path = PROC) -> CpuTimes | None:
    """Read the times of now, or None where there is no /proc/stat."""
    try:
        first, *_ = (proc / "stat").read_text(encoding="ascii").splitlines()
        uptime = float((proc / "uptime").read_text(encoding="ascii").split()[0])
        name, user, nice, system, _idle, _wait, *interrupts_and_steal = first.split()
        ticks = sum(map(int, (user, nice, system, *interrupts_and_steal[:3])))
        own = _ticks_of_own(proc)
    except (OSError, ValueError):
        return None
    if name != "cpu":
        return None
    second = os.sysconf("SC_CLK_TCK")
    return CpuTimes(uptime, ticks / second, own / second)


def _ticks_of_own(proc: Path) -> int:
    """Count the ticks of this process, of its living descendants, and of those that have ended."""
    ticks, parents = {}, {}
    for file in proc.glob("[0-9]*/stat"):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        fields = text.rpartition(")")[2].split()  # its name may hold spaces and brackets
        process = int(file.parent.name)
        parents[process] = int(fields[1])
        ticks[process] = sum(map(int, fields[11:15]))
    own = os.getpid()
    if own not in ticks:
        raise ValueError(f"process {own} is not in {proc}")
    return sum(count for process, count in ticks.items() if _descends(process, own, parents))


def _descends(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process and process != ancestor:
        process = parents.get(process, 0)
    return process == ancestor


def busy_cores(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """Return how many cores other processes kept busy between two moments, None if unknown."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    others = (after.all - before.all) - (after.own - before.own)
    others -= TICKS / os.sysconf("SC_CLK_TCK")
    return max(0.0, others) / (after.wall - before.wall)


@dataclass
class Load:
    """What was seen of other processes.

    Attributes
    ----------
    before, during : float or None
        Cores that they kept busy before measuring began and while it went on; None if unknown.
    spreads : list of float
        Of the timings, half the distance of their quartiles as a part of the median.
    """

    before: float | None = None
    during: float | None = None
    spreads: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float | None:
        """The median of the spreads, None without any."""
        ordered = sorted(self.spreads)
        return ordered[len(ordered) // 2] if ordered else None

    def warnings(self) -> list[str]:
        """Return what makes the timings doubtful, in sentences."""
        found = [
            f"Other processes kept {busy:.2f} cores busy {when}: times and ratios are doubtful."
            for busy, when in ((self.before, "before"), (self.during, "while it was measured"))
            if busy is not None and busy > MAX_BUSY_CORES
        ]
        if self.spread is not None and self.spread > MAX_SPREAD:
            found.append(
                f"Rounds differ by ± {100 * self.spread:.0f} % (quartiles, median of the "
                "timings): times and ratios are doubtful."
            )
        return found

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "busy_cores_before": self.before,
            "busy_cores_during": self.during,
            "spread": self.spread,
            "warnings": self.warnings(),
        }


class Watch:
    """Reads the load before measuring, when it is made, and during, until `stop`."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        before = read(proc)
        time.sleep(IDLE_SECONDS)
        self._start = read(proc)
        self.load = Load(busy_cores(before, self._start))

    def stop(self, spreads: Iterable[float] = ()) -> Load:
        """Return what was seen until now, with the spreads of the timings."""
        self.load.during = busy_cores(self._start, read(self._proc))
        self.load.spreads = list(spreads)
        return self.load


def warned(loads: Sequence[dict[str, Any]]) -> list[str]:
    """Return the warnings of several runs, each once."""
    return list(dict.fromkeys(text for one in loads for text in one["warnings"]))
