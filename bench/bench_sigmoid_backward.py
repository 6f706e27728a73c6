"""Times of sigmoid_backward: dz = dy · y · (1 − y).

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_sigmoid_backward(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("sigmoid_backward"))
