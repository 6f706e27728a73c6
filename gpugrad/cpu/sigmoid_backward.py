"""dz = dy · y · (1 − y)."""

from gpugrad.cpu import activation, elementwise
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes dz from dy and y or z; all of any one shape."""
    gradient = activation.gradient

    def block(dy: Array, y: Array, z: Array, dz: Array, scratch: Scratch) -> None:
        gradient(dy, y, z, scratch, dz)

    return elementwise.bind(block, *inputs.values(), outputs["dz"])
