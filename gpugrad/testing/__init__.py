"""Exact references and derived error bounds of gpugrad's functions, for tests that use them.

The bounds are those of gpugrad's own tests; docs/testing.md shows a downstream project's.
"""

from gpugrad.errors import AccuracyError
from gpugrad.testing.assertions import Element, assert_within_bounds, worst_element
from gpugrad.testing.bounds import Answer, reference
from gpugrad.testing.operations import random_operands

__all__ = [
    "AccuracyError",
    "Answer",
    "Element",
    "assert_within_bounds",
    "random_operands",
    "reference",
    "worst_element",
]
