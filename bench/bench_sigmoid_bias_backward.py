"""Times of sigmoid_bias_backward: dz and db in one pass.

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_sigmoid_bias_backward(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("sigmoid_bias_backward"))
