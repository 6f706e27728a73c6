"""dz = dy · y · (1 − y): kernels/sigmoid_backward.cu."""

from typing import Any

from gpugrad.gpu.arguments import defines, elementwise
from gpugrad.gpu.launches import Launches


def sigmoid_backward(
    launches: Launches, plan: Any, dy: Any, y: Any, z: Any, *, dz: Any, accumulate: tuple[str, ...]
) -> None:
    """Write dz; all of any one shape."""
    saved = y if z is None else z
    macros = defines(dy.dtype, logits=z is not None)
    elementwise(launches, "sigmoid_backward", macros, dy, saved, dz)
