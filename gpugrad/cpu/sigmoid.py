"""y = σ(z)."""

from gpugrad.cpu import activation, elementwise
from gpugrad.cpu.scratch import Arrays, Compute, Names


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes σ(z) into y; both of any one shape."""
    return elementwise.bind(activation.sigma, inputs["z"], outputs["y"])
