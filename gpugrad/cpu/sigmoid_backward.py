"""dz = dy · y · (1 − y)."""

from gpugrad.cpu import elementwise
from gpugrad.cpu.activation import gradient
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes dz from dy and y or z; all of any one shape."""
    return elementwise.bind(_block, *inputs.values(), outputs["dz"])


def _block(dy: Array, y: Array | None, z: Array | None, dz: Array, scratch: Scratch) -> None:
    gradient(dy, y, z, scratch, dz)
