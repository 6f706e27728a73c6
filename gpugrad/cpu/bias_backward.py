"""db = Σ_i dy."""

from gpugrad.cpu import sums
from gpugrad.cpu.products import operand
from gpugrad.cpu.scratch import Array, Arrays, Compute, Names, Scratch


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what sums dy (n, m) over its rows into db (m,)."""
    return sums.bind(_block, len(inputs["dy"]), outputs["db"], add="db" in accumulate)


def _block(dy: Array, scratch: Scratch) -> Array:
    return operand(dy, "dy", scratch)
