"""Operands of matrix products, of every kind that products of different precision tell apart.

A product A B is left rightᵀ: left is (rows, contraction), right (columns, contraction). They are
computed in float64 and rounded to float32 once, so that no library's last bit matters.
"""

# ruff: noqa: D401  (a family's docstring is its row of the table in docs/numerics.md)

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Random = np.random.Generator
Pair = tuple[Array, Array]
Shape = tuple[int, int]

SPREAD = 60  # binary orders of magnitude up and down
SATURATED = 40.0  # standard deviation of logits, most of which then have a σ of 0 or 1
MIN_NORMAL, MIN_SUBNORMAL = -126, -149  # exponents


def draw(family: str, rows: int, columns: int, contraction: int, seed: int) -> Pair:
    """Make the two operands of a product."""
    random = np.random.default_rng([contraction, seed])
    left, right = FAMILIES[family](random, (rows, contraction), (columns, contraction))
    return left.astype(np.float32), right.astype(np.float32)


def _ordinary(random: Random, left: Shape, right: Shape) -> Pair:
    """Normally distributed."""
    return random.standard_normal(left), random.standard_normal(right)


def _positive(random: Random, left: Shape, right: Shape) -> Pair:
    """Their magnitudes: no term cancels another."""
    a, b = _ordinary(random, left, right)
    return np.abs(a), np.abs(b)


def _repeated(random: Random, left: Shape, right: Shape) -> Pair:
    """All of a row of A or a column of B the same, just above a power of two: errors add up."""
    a, b = (1 + 2.0**-8 * random.random((shape[0], 1)) for shape in (left, right))
    return np.broadcast_to(a, left), np.broadcast_to(b, right)


def _rows(random: Random, left: Shape, right: Shape) -> Pair:
    """Rows of A times 2^-60 to 2^60."""
    a, b = _ordinary(random, left, right)
    return _scaled(random, a, (left[0], 1)), b


def _columns(random: Random, left: Shape, right: Shape) -> Pair:
    """Columns of B times 2^-60 to 2^60."""
    a, b = _ordinary(random, left, right)
    return a, _scaled(random, b, (right[0], 1))


def _terms(random: Random, left: Shape, right: Shape) -> Pair:
    """Columns of A times 2^-30 to 2^30, and rows of B by the inverse."""
    a, b = _ordinary(random, left, right)
    powers = random.integers(-SPREAD // 2, SPREAD // 2 + 1, (1, left[1]))
    return np.ldexp(a, powers), np.ldexp(b, -powers)


def _entries_of_one(random: Random, left: Shape, right: Shape) -> Pair:
    """Each entry of A times 2^-60 to 2^60."""
    a, b = _ordinary(random, left, right)
    return _scaled(random, a, left), b


def _entries(random: Random, left: Shape, right: Shape) -> Pair:
    """Each entry of A and of B times 2^-60 to 2^60."""
    a, b = _ordinary(random, left, right)
    return _scaled(random, a, left), _scaled(random, b, right)


def _half_scaled_entries(random: Random, left: Shape, right: Shape) -> Pair:
    """Each entry of A and of B times 2^-30 to 2^30."""
    a, b = _ordinary(random, left, right)
    return _scaled(random, a, left, SPREAD // 2), _scaled(random, b, right, SPREAD // 2)


def _cancelling(random: Random, left: Shape, right: Shape) -> Pair:
    """Every term has one of the other sign beside it, equal but for 2^-12 of it."""
    a, b = _ordinary(random, left, right)
    half = left[1] // 2
    a[:, half : 2 * half] = -a[:, :half] * (1 + 2.0**-12 * random.standard_normal((left[0], half)))
    b[:, half : 2 * half] = b[:, :half]
    order = random.permutation(left[1])
    return a[:, order], b[:, order]


def _subnormal(random: Random, left: Shape, right: Shape) -> Pair:
    """All entries of A subnormal, those of B times 2^40."""
    a, b = _ordinary(random, left, right)
    powers = random.integers(MIN_SUBNORMAL + 1, MIN_NORMAL, left)
    return np.ldexp(a, powers), np.ldexp(b, 40)


def _subnormal_results(random: Random, left: Shape, right: Shape) -> Pair:
    """Entries of A times 2^-70, of B times 2^-66: products below the normal numbers."""
    a, b = _ordinary(random, left, right)
    return np.ldexp(a, -70), np.ldexp(b, -66)


def _huge(random: Random, left: Shape, right: Shape) -> Pair:
    """All entries times 2^55: sums beyond 2^96."""
    a, b = _ordinary(random, left, right)
    return np.ldexp(a, 55), np.ldexp(b, 55)


def _saturated(random: Random, left: Shape, right: Shape) -> Pair:
    """A is dy y (1 − y), y the sigmoid of logits with a standard deviation of 40."""
    dy, b = (one.astype(np.float32) for one in _ordinary(random, left, right))
    e = np.exp(-np.abs(SATURATED * random.standard_normal(left)))
    y = (np.where(random.random(left) < 0.5, 1, e) / (1 + e)).astype(np.float32)
    return dy * (y * (1 - y)), b


def _saturated_logits(random: Random, left: Shape, right: Shape) -> Pair:
    """The same from the logits: dy σ(z) σ(−z), which keeps its digits."""
    dy, b = _ordinary(random, left, right)
    e = np.exp(-np.abs(SATURATED * random.standard_normal(left)))
    return dy * (e / (1 + e) ** 2), b


def _scaled(random: Random, matrix: Array, shape: Shape, spread: int = SPREAD) -> Array:
    return np.ldexp(matrix, random.integers(-spread, spread + 1, shape))


FAMILIES: dict[str, Callable[[Random, Shape, Shape], Pair]] = {
    "ordinary": _ordinary,
    "positive": _positive,
    "repeated": _repeated,
    "rows": _rows,
    "columns": _columns,
    "terms": _terms,
    "entries of A": _entries_of_one,
    "entries": _entries,
    "entries, 2^±30": _half_scaled_entries,
    "cancelling": _cancelling,
    "subnormal": _subnormal,
    "subnormal results": _subnormal_results,
    "huge": _huge,
    "saturated": _saturated,
    "saturated, from logits": _saturated_logits,
}


def describe(family: str) -> str:
    """Return a line on what a family's operands are."""
    return (FAMILIES[family].__doc__ or "").rstrip(".")
