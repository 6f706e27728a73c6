"""Operations composed of a library's element-wise functions and the plain sums and products."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpugrad.operations import OPERATIONS

Calls = list[Callable[[], Any]]


def composed(sigmoid: Any, dense_sigmoid: Any, sigmoid_backward: Any) -> dict[str, Any]:
    """Return a function of the operands for each operation."""
    matmul_backward, bias_backward = (
        functools.partial(OPERATIONS[op].plain, None)  # needs no function of a namespace
        for op in ("matmul_backward", "bias_backward")
    )

    def sigmoid_bias_backward(dy: Any, y: Any) -> Any:
        dz = sigmoid_backward(dy, y)
        return dz, *bias_backward(dz)

    def dense_sigmoid_backward(dy: Any, y: Any, x: Any, w: Any) -> Any:
        dz = sigmoid_backward(dy, y)
        return *matmul_backward(dz, x, w), *bias_backward(dz)

    return {
        "matmul_backward": matmul_backward,
        "bias_backward": bias_backward,
        "sigmoid_backward": sigmoid_backward,
        "sigmoid_bias_backward": sigmoid_bias_backward,
        "dense_sigmoid_backward": dense_sigmoid_backward,
        "sigmoid": sigmoid,
        "dense_sigmoid": dense_sigmoid,
    }


def bound(function: Any, op: str, sets: Sequence[Mapping[str, Any]]) -> Calls:
    """Return a call for each set of operands."""
    names = OPERATIONS[op].operands
    return [functools.partial(function, *(one.get(name) for name in names)) for one in sets]
