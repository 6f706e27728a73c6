"""Times of bias_backward: db = Σ dy over the batch.

bench/conftest.py tells how to run it, and what the cases are.
"""

from collections.abc import Callable
from typing import Any


def test_bias_backward(benchmark: Any, call: Callable[[str], Any]) -> None:
    """Time it."""
    benchmark(call("bias_backward"))
