"""Times of matmul_backward: dx = dy wᵀ, dw = xᵀ dy.

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_matmul_backward(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("matmul_backward"))
