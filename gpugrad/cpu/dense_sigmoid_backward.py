"""dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz with dz = dy · y · (1 − y)."""

from collections.abc import Callable, Mapping
from typing import Any

from gpugrad.cpu import again
from gpugrad.cpu.arithmetic import sigmoid_gradient
from gpugrad.cpu.layer_backward import layer_backward
from gpugrad.cpu.scratch import Array, Scratch


def dense_sigmoid_backward(
    dy: Array,
    y: Array | None,
    z: Array | None,
    x: Array,
    w: Array,
    dx: Array | None = None,
    dw: Array | None = None,
    db: Array | None = None,
    accumulate: tuple[str, ...] = (),
) -> None:
    """Write dx (n, k), dw (k, m) and db (m,); dy and y or z are (n, m)."""

    def dz(rows: slice, columns: slice, scratch: Scratch, out: Array | None = None) -> Array:
        block = (rows, columns)
        return sigmoid_gradient(
            dy[block],
            None if y is None else y[block],
            None if z is None else z[block],
            scratch,
            out,
        )

    layer_backward(dz, x, w, dx, dw, db, accumulate)


def repeated(
    compute: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Array],
    accumulate: tuple[str, ...],
) -> Callable[..., None]:
    """Give what computes calls like this one in the place of `compute`."""
    if outputs.keys() <= {"db"} or not all(one.flags.carray for one in outputs.values()):
        return compute
    x, (k, m) = inputs["x"], inputs["w"].shape
    return again.backward(len(x), k, m, x.dtype, accumulate, compute)
