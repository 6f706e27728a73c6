"""Operands of matrix products, of every kind on which products of different precision differ.

A product A B is left rightᵀ: left is (rows, contraction), right (columns, contraction). They are
computed in float64 and rounded to float32 once, so that no library's last bit matters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Random = np.random.Generator
Pair = tuple[Array, Array]
Shape = tuple[int, int]
Draw = Callable[[Random, Shape, Shape], Pair]

SPREAD = 60  # binary orders of magnitude up and down
SATURATED = 40.0  # standard deviation of logits, most of which then have a σ of 0 or 1
MIN_NORMAL, MIN_SUBNORMAL = -126, -149  # exponents


def draw(family: str, rows: int, columns: int, contraction: int, seed: int) -> Pair:
    """Make the two operands of a product."""
    random = np.random.default_rng([contraction, seed])
    _, function = FAMILIES[family]
    left, right = function(random, (rows, contraction), (columns, contraction))
    return left.astype(np.float32), right.astype(np.float32)


def describe(family: str) -> str:
    """Return a line on what a family's operands are."""
    return FAMILIES[family][0]


def _normal(change: Callable[[Random, Array, Array], Pair] = lambda _, a, b: (a, b)) -> Draw:
    """Return what draws normally distributed operands and changes them."""
    return lambda random, *shapes: change(random, *map(random.standard_normal, shapes))


def _scaled(of_a: str, of_b: str, spread: int = SPREAD) -> Draw:
    """Scale each "row" or "entry" of either operand by its own power of two."""

    def scale(random: Random, one: Array, each: str) -> Array:
        shape = {"row": (len(one), 1), "entry": one.shape}
        return np.ldexp(one, random.integers(-spread, spread + 1, shape[each])) if each else one

    return _normal(lambda random, a, b: (scale(random, a, of_a), scale(random, b, of_b)))


def _repeated(random: Random, left: Shape, right: Shape) -> Pair:
    a, b = (1 + 2.0**-8 * random.random((shape[0], 1)) for shape in (left, right))
    return np.broadcast_to(a, left), np.broadcast_to(b, right)


def _terms(random: Random, a: Array, b: Array) -> Pair:
    powers = random.integers(-SPREAD // 2, SPREAD // 2 + 1, (1, a.shape[1]))
    return np.ldexp(a, powers), np.ldexp(b, -powers)


def _cancelling(random: Random, a: Array, b: Array) -> Pair:
    rows, contraction = a.shape
    half = contraction // 2
    a[:, half : 2 * half] = -a[:, :half] * (1 + 2.0**-12 * random.standard_normal((rows, half)))
    b[:, half : 2 * half] = b[:, :half]
    order = random.permutation(contraction)
    return a[:, order], b[:, order]


def _subnormal(random: Random, a: Array, b: Array) -> Pair:
    return np.ldexp(a, random.integers(MIN_SUBNORMAL + 1, MIN_NORMAL, a.shape)), np.ldexp(b, 40)


def _saturated(random: Random, dy: Array, b: Array) -> Pair:
    e = np.exp(-np.abs(SATURATED * random.standard_normal(dy.shape)))
    y = (np.where(random.random(dy.shape) < 0.5, 1, e) / (1 + e)).astype(np.float32)
    return dy.astype(np.float32) * (y * (1 - y)), b


def _saturated_logits(random: Random, dy: Array, b: Array) -> Pair:
    e = np.exp(-np.abs(SATURATED * random.standard_normal(dy.shape)))
    return dy * (e / (1 + e) ** 2), b


FAMILIES: dict[str, tuple[str, Draw]] = {
    "ordinary": ("Normally distributed", _normal()),
    "positive": (
        "Their magnitudes: no term cancels another",
        _normal(lambda _, a, b: (np.abs(a), np.abs(b))),
    ),
    "repeated": (
        "All of a row of A or a column of B the same, just above a power of two: errors add up",
        _repeated,
    ),
    "rows": ("Rows of A times 2^-60 to 2^60", _scaled("row", "")),
    "columns": ("Columns of B times 2^-60 to 2^60", _scaled("", "row")),
    "terms": ("Columns of A times 2^-30 to 2^30, and rows of B by the inverse", _normal(_terms)),
    "entries of A": ("Each entry of A times 2^-60 to 2^60", _scaled("entry", "")),
    "entries": ("Each entry of A and of B times 2^-60 to 2^60", _scaled("entry", "entry")),
    "entries, 2^±30": (
        "Each entry of A and of B times 2^-30 to 2^30",
        _scaled("entry", "entry", SPREAD // 2),
    ),
    "cancelling": (
        "Every term has one of the other sign beside it, equal but for 2^-12 of it",
        _normal(_cancelling),
    ),
    "subnormal": ("All entries of A subnormal, those of B times 2^40", _normal(_subnormal)),
    "subnormal results": (
        "Entries of A times 2^-70, of B times 2^-66: products below the normal numbers",
        _normal(lambda _, a, b: (np.ldexp(a, -70), np.ldexp(b, -66))),
    ),
    "huge": (
        "All entries times 2^55: sums beyond 2^96",
        _normal(lambda _, a, b: (np.ldexp(a, 55), np.ldexp(b, 55))),
    ),
    "saturated": (
        "A is dy y (1 − y), y the sigmoid of logits with a standard deviation of 40",
        _normal(_saturated),
    ),
    "saturated, from logits": (
        "The same from the logits: dy σ(z) σ(−z), which keeps its digits",
        _normal(_saturated_logits),
    ),
}
