"""db = Σ_i dy."""

from collections.abc import Collection, Mapping

from gpugrad.cpu import sums
from gpugrad.cpu.products import operand
from gpugrad.cpu.scratch import Array, Compute, Scratch


def bind(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], accumulate: Collection[str]
) -> Compute:
    """Return what sums dy (n, m) over its rows into db (m,)."""
    return sums.bind(_block, len(inputs["dy"]), outputs["db"], add="db" in accumulate)


def _block(dy: Array, scratch: Scratch) -> Array:
    return operand(dy, "dy", scratch)
