"""Times of sigmoid: y = σ(z).

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_sigmoid(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("sigmoid"))
