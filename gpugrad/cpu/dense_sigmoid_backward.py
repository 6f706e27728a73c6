"""dx = dz wᵀ, dw = xᵀ dz and db = Σ_i dz with dz = dy · y · (1 − y)."""

from gpugrad.cpu import activation, layer
from gpugrad.cpu.scratch import Arrays, Compute, Names


def bind(inputs: Arrays, outputs: Arrays, accumulate: Names) -> Compute:
    """Return what writes dx (n, k), dw (k, m) and db (m,) from dy, y or z (n, m), x and w."""
    return layer.bind(activation.gradient, inputs, outputs, accumulate)
