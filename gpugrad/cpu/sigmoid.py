"""y = σ(z)."""

from gpugrad.cpu import elementwise
from gpugrad.cpu.activation import sigma
from gpugrad.cpu.scratch import Arrays, Compute, Names


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes σ(z) into y; both of any one shape."""
    return elementwise.bind(sigma, inputs["z"], outputs["y"])
