"""y = σ(z): kernels/sigmoid.cu."""

from typing import Any

from gpugrad.gpu.arguments import defines, elementwise
from gpugrad.gpu.runtime import Runtime


def sigmoid(runtime: Runtime, plan: Any, z: Any, *, y: Any, accumulate: tuple[str, ...]) -> None:
    """Write σ(z) into y; both of any one shape."""
    elementwise(runtime, "sigmoid", defines(z.dtype), z, y)
