"""Whether large results are right, seen from a part of them that is cheap to compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpugrad.errors import AccuracyError
from gpugrad.operations import DIMENSIONS, OPERATIONS
from gpugrad.testing.assertions import worst_element
from gpugrad.testing.bounds import Answer, reference
from gpugrad.testing.operations import Arrays

SAMPLED = 8  # rows, inputs or outputs of a part, the first and the last among them


@dataclass(frozen=True)
class Part:
    """A smaller problem whose results are a part of the whole one's.

    It has all of what its results sum over, and a sample of the rest: `sampled` are letters of
    n, k and m. `wrt` is what it differentiates with respect to.
    """

    sampled: str
    wrt: tuple[str, ...] = ()

    def take(self, arrays: Arrays) -> Arrays:
        """Cut arrays, known by their names, to this part."""
        taken = {}
        for name, array in arrays.items():
            for axis, letter in enumerate(DIMENSIONS[name]):
                if letter in self.sampled:
                    array = array.take(_sample(array.shape[axis]), axis)
            taken[name] = array
        return taken


def parts(op: str) -> tuple[Part, ...]:
    """Return the parts of an operation: each has results that sum over one extent, or over none."""
    operation = OPERATIONS[op]
    if not operation.products:
        return (Part("m"),)
    if not operation.wrt:
        return (Part("nm"),)
    return Part("nk", ("x",)), Part("km", tuple(one for one in operation.wrt if one != "x"))


Answers = list[tuple[Part, dict[str, Answer]]]


def answers(op: str, operands: Arrays, planes: Mapping[str, int]) -> Answers:
    """Compute parts of an operation's results in higher precision, with their bounds.

    Parameters
    ----------
    op : str
    operands : dict of NumPy arrays
    planes : mapping
        Of the operands of products on tensor cores, by result.
    """
    return [
        (part, reference(op, wrt=part.wrt, planes=planes, **part.take(operands)))
        for part in parts(op)
    ]


def verify(op: str, results: Arrays, known: Answers, device: str) -> None:
    """Compare parts of an operation's results with the reference.

    Parameters
    ----------
    op : str
    results : dict of NumPy arrays
    known : list
        From `answers`.
    device : str
        Where the results were computed, for the message.

    Raises
    ------
    AccuracyError
        An element is outside its bound.
    """
    for part, expected in known:
        taken = part.take(results)
        for name, answer in expected.items():
            ratio = worst_element(taken[name], answer).ratio
            if ratio > 1:
                raise AccuracyError(
                    f"{op} is wrong in {taken[name].dtype} on the {device}: "
                    f"{name} is {ratio:.3g} times its bound away"
                )


def errors(results: Arrays, known: Answers) -> dict[str, float]:
    """Return max |error| / max |exact| of each result, over the parts; NaN where one has a NaN."""
    found = {}
    for part, expected in known:
        taken = part.take(results)
        for name, (exact, _, _) in expected.items():
            off = np.abs(taken[name].astype(exact.dtype) - exact)
            largest = np.max(np.abs(exact), initial=0)
            found[name] = float(np.max(off, initial=0) / (largest or 1))
    return found


def _sample(extent: int) -> Any:
    return np.unique(np.linspace(0, extent - 1, SAMPLED).astype(np.int64))
