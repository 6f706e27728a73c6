"""How far a product is from float64: by component, and in the norms of its rows and columns.

By component, |error| is measured against u Σ|a||b|, u = 2⁻²⁴: one rounding of a sum in which no
term cancels is at most 1. In norm it is measured against ‖a‖₂ ‖b‖₂ of the row of A and the column
of B, which is never less than Σ|a||b|. Below the normal numbers, where roundings do not become
smaller any more, both are measured against the smallest normal number instead.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDOFF = 2.0**-24
SMALLEST_NORMAL = 2.0**-126


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


def by_component(result: Array, answer: Exact) -> Array:
    """Return |error| / (u Σ|a||b|)."""
    scale = ROUNDOFF * np.maximum(answer.magnitudes, SMALLEST_NORMAL)
    return np.asarray(np.abs(result.astype(np.float64) - answer.value) / scale)


def in_norm(result: Array, answer: Exact) -> Array:
    """Return |error| / (‖a‖₂ ‖b‖₂)."""
    scale = np.maximum(answer.norms, SMALLEST_NORMAL)
    return np.asarray(np.abs(result.astype(np.float64) - answer.value) / scale)


def lost_in_planes(planes: int, contraction: int) -> float:
    """Bound in norm what planes leave of the operands, and the products that are left out.

    By gpugrad.testing three planes leave nothing, and products of 2⁻²³ |a||b| are left out.
    One leaves 2⁻¹¹ |v| + 2⁻³⁷ M of a value v, two leave 2⁻²² |v| + 2⁻⁴⁸ M, beside the largest
    magnitude M of the row or column; with two, the product of what the first planes have left,
    2⁻¹¹ |v| + 2⁻³⁸ M, is left out. A sum of L terms has Σ|a||b| <= ‖a‖₂ ‖b‖₂,
    M_a Σ|b| <= √L ‖a‖₂ ‖b‖₂ and L M_a M_b <= L ‖a‖₂ ‖b‖₂, and both operands have the same rests.
    """
    root = math.sqrt(contraction)
    rest = {3: 0.0, 2: 2.0**-22 + 2.0**-48 * root, 1: 2.0**-11 + 2.0**-37 * root}[planes]
    left_out = {3: 2.0**-23, 2: (2.0**-11 + 2.0**-38 * root) ** 2, 1: 0.0}[planes]
    return 2 * rest + rest**2 + left_out


class Errors:
    """Errors of all components that were computed, their largest, and their root mean square."""

    def __init__(self, errors: Sequence[Array]) -> None:
        self.every = np.concatenate([one.ravel() for one in errors])
        self.largest = float(np.max(self.every))
        self.rms = math.sqrt(float(np.mean(np.square(self.every))))


def worse_by(ours: Errors, others: Errors) -> float:
    """Return how much greater errors are than others of the same components, in standard errors.

    In the mean square, or in what lies beyond all but a hundredth of the others, whichever is
    more. Above `CHANCE`, it is no chance.
    """
    limit = float(np.quantile(others.every, 0.99))
    tails = (np.maximum(one.every - limit, 0) for one in (ours, others))
    return max(_above(ours.every**2, others.every**2), _above(*tails))


CHANCE = 3.0  # standard errors


def _above(ours: Array, others: Array) -> float:
    """Return the mean of paired differences in standard errors of it."""
    difference = ours - others
    mean, deviation = float(np.mean(difference)), float(np.std(difference))
    return 0.0 if mean == 0 else mean * math.sqrt(difference.size) / deviation
