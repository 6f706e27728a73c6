"""Samples of a time: their median, quartiles and ratios."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median of samples, their quartiles, and how many there are."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def summarize(samples: Sequence[float]) -> Summary:
    """Return median and quartiles, interpolated between the samples nearest to them."""
    if not samples:
        return Summary(math.nan, math.nan, math.nan, 0)
    ordered = sorted(samples)

    def at(part: float) -> float:
        place = part * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return Summary(at(0.5), at(0.25), at(0.75), len(ordered))


def ratio(others: Sequence[float], ours: Sequence[float]) -> Summary:
    """Summarise how many times longer another candidate took than ours, round by round."""
    return summarize([other / one for other, one in zip(others, ours, strict=False)])
