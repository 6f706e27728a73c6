"""dz = dy · y · (1 − y) and db = Σ_i dz in one pass."""

from gpugrad.cpu import activation, sums
from gpugrad.cpu.arithmetic import store
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes dz (n, m), from dy and y or z, and its column sums db (m,)."""
    gradient, add = activation.gradient, "dz" in accumulate

    def block(dy: Array, y: Array, z: Array, dz: Array, scratch: Scratch) -> Array:
        value = gradient(dy, y, z, scratch)
        store(value, dz, add=add)
        return value

    return sums.bind(block, len(inputs["dy"]), outputs["db"], add="db" in accumulate)
