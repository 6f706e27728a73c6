"""Times of dense_sigmoid: y = σ(x w + b).

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_dense_sigmoid(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("dense_sigmoid"))
