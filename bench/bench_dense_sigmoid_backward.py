"""Times of dense_sigmoid_backward: dx, dw and db of the layer.

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_dense_sigmoid_backward(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("dense_sigmoid_backward"))
