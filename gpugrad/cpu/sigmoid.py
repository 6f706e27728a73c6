"""y = σ(z)."""

from collections.abc import Collection, Mapping

from gpugrad.cpu import elementwise
from gpugrad.cpu.activation import sigma
from gpugrad.cpu.scratch import Array, Compute


def bind(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], accumulate: Collection[str]
) -> Compute:
    """Return what writes σ(z) into y; both of any one shape."""
    return elementwise.bind(sigma, inputs["z"], outputs["y"])
