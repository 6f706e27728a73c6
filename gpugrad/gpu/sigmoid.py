"""y = σ(z): kernels/sigmoid.cu."""

from typing import Any

from gpugrad.gpu.arguments import defines, elementwise
from gpugrad.gpu.launches import Launches


def sigmoid(launches: Launches, plan: Any, z: Any, *, y: Any, accumulate: tuple[str, ...]) -> None:
    """Write σ(z) into y; both of any one shape."""
    elementwise(launches, "sigmoid", defines(z.dtype), z, y)
