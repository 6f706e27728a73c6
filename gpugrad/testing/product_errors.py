"""How far a product is from float64: by component, and in the norms of its rows and columns.

By component, |error| is measured against u Σ|a||b|, u = 2⁻²⁴ in float32: one rounding of a sum in
which no term cancels is at most 1. In norm it is measured against ‖a‖₂ ‖b‖₂ of the row of A and the
column of B, which is never less than Σ|a||b|. Below the normal numbers, where roundings do not
become smaller any more, both are measured against the smallest normal number instead.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.testing.bounds import FORMATS, lost_in_planes

Array = np.ndarray[Any, Any]

ROUNDOFF = FORMATS["float32"].roundoff
PLANES = {"highest": 3, "high": 2, "medium": 1}  # on tensor cores, by precision class
CHANCE = 3.0  # standard errors


class Exact(NamedTuple):
    """A product left rightᵀ in float64, with Σ|a||b| and ‖a‖₂ ‖b‖₂ of its components."""

    value: Array
    magnitudes: Array
    norms: Array


def exact(left: Array, right: Array) -> Exact:
    """Multiply operands (outer, contraction) in float64."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return Exact(a @ b.T, np.abs(a) @ np.abs(b).T, norms)


def by_component(result: Array, exact: Array, magnitudes: Array, dtype: str = "float32") -> Array:
    """Return |error| / (u Σ|terms|) of sums in a dtype."""
    roundoff = FORMATS[dtype].roundoff
    scale = roundoff * np.maximum(magnitudes, _smallest_normal(dtype))
    return np.asarray(np.abs(result.astype(exact.dtype) - exact) / scale, np.float64)


def in_norm(result: Array, answer: Exact) -> Array:
    """Return |error| / (‖a‖₂ ‖b‖₂)."""
    scale = np.maximum(answer.norms, _smallest_normal("float32"))
    return np.asarray(np.abs(result.astype(np.float64) - answer.value) / scale)


def _smallest_normal(dtype: str) -> float:
    return FORMATS[dtype].subnormal / FORMATS[dtype].roundoff / 2


def lost_in_norm(planes: int, contraction: int) -> float:
    """Bound in norm what planes lose of a product.

    A sum of L terms has Σ|a||b| <= ‖a‖₂ ‖b‖₂, and of the largest magnitudes M of a row and a column
    M_a Σ|b| <= √L ‖a‖₂ ‖b‖₂ and L M_a M_b <= L ‖a‖₂ ‖b‖₂: it loses no more than one product of
    1 and 1 beside magnitudes of √L.
    """
    one, largest = np.ones((1, 1)), np.full((1, 1), math.sqrt(contraction))
    return float(lost_in_planes(planes, (one, one), (largest, largest))[0, 0])


class Errors:
    """Errors of all components that were computed, their largest, and their root mean square."""

    def __init__(self, errors: Sequence[Array]) -> None:
        self.every = np.concatenate([one.ravel() for one in errors])
        self.largest = float(np.max(self.every, initial=0))
        self.rms = math.sqrt(float(np.mean(np.square(self.every)))) if self.every.size else 0.0


class ProductErrors:
    """Errors of products of one contraction, by component and in norm.

    Parameters
    ----------
    products : sequence of tuple
        Each product, and what it should be.
    contraction : int
    """

    def __init__(self, products: Sequence[tuple[Array, Exact]], contraction: int) -> None:
        self.contraction = contraction
        self.components = Errors([by_component(one, *exact[:2]) for one, exact in products])
        self.norms = Errors([in_norm(*one) for one in products])

    def keep_promise(self, planes: int, ieee: "ProductErrors") -> bool:
        """Return whether they are what the precision class of so many planes promises.

        "highest", of three planes, is by component no worse than IEEE arithmetic, whose errors are
        `ieee`. The others add in norm no more than what planes lose.
        """
        if planes == PLANES["highest"]:
            return worse_by(self.components, ieee.components) <= CHANCE
        bound = lost_in_norm(planes, self.contraction) + ieee.norms.largest
        return self.norms.largest <= bound


def worse_by(ours: Errors, others: Errors) -> float:
    """Return how much greater errors are than others of the same components, in standard errors.

    In the mean square, or in what lies beyond all but a hundredth of the others, whichever is
    more. Above `CHANCE`, it is no chance.
    """
    limit = float(np.quantile(others.every, 0.99))
    tails = (np.maximum(one.every - limit, 0) for one in (ours, others))
    return max(_above(ours.every**2, others.every**2), _above(*tails))


def _above(ours: Array, others: Array) -> float:
    """Return the mean of paired differences in standard errors of it."""
    difference = ours - others
    mean, deviation = float(np.mean(difference)), float(np.std(difference))
    return 0.0 if mean == 0 else mean * math.sqrt(difference.size) / deviation
