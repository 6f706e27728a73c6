"""dx = dy wᵀ and dw = xᵀ dy."""

from collections.abc import Callable, Mapping
from typing import Any

from gpugrad.cpu import again
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


def repeated(
    compute: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Array],
    accumulate: tuple[str, ...],
) -> Callable[..., None]:
    """Give what computes calls like this one in the place of `compute`."""
    if not outputs or not all(one.flags.carray for one in outputs.values()):
        return compute
    x, (k, m) = inputs["x"], inputs["w"].shape
    return again.products(len(x), k, m, x.dtype, accumulate, compute)
