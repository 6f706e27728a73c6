"""dx = dy wᵀ and dw = xᵀ dy."""

from gpugrad.cpu import layer
from gpugrad.cpu.arithmetic import accumulator
from gpugrad.cpu.products import is_square, operand, takes
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes dx (n, k) and dw (k, m) from dy (n, m), x (n, k) and w (k, m)."""
    dy, x, w = inputs.values()
    dz = _itself if takes(dy, accumulator(dy.dtype)) else _copied
    usual, of_squares = (
        layer.bind(dz, inputs, outputs, accumulate, whole=whole) for whole in (True, False)
    )
    may_be_square = w.shape[0] in (len(x), w.shape[1])

    def compute(dy: Array, x: Array, w: Array, dx: Array | None, dw: Array | None) -> None:
        square = may_be_square and (is_square(dy, x.T) or is_square(dy, w.T))
        (of_squares if square else usual)(dy, None, None, x, w, dx, dw, None)

    return compute


def _itself(dy: Array, *_: object) -> Array:
    return dy


def _copied(dy: Array, _y: None, _z: None, scratch: Scratch) -> Array:
    return operand(dy, "dz", scratch)
