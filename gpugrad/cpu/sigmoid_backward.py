"""dz = dy · y · (1 − y)."""

import numpy as np

from gpugrad.cpu.arithmetic import Array, sigmoid_gradient


def sigmoid_backward(
    dy: Array, y: Array | None, z: Array | None, *, dz: Array, accumulate: tuple[str, ...]
) -> None:
    """Write dz; all of any one shape."""
    with np.errstate(all="ignore"):
        dz[...] = sigmoid_gradient(dy, y, z)
