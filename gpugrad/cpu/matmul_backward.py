"""dx = dy wᵀ and dw = xᵀ dy."""

from gpugrad.cpu.layer_backward import layer_backward
from gpugrad.cpu.scratch import Array


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    dx: Array | None = None,
    dw: Array | None = None,
    accumulate: tuple[str, ...] = (),
) -> None:
    """Write dx (n, k) and dw (k, m) from dy (n, m), x (n, k) and w (k, m)."""
    layer_backward(dy, x, w, dx, dw, None, accumulate)
