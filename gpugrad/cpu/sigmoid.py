"""y = σ(z)."""

from gpugrad.cpu import arithmetic
from gpugrad.cpu.elementwise import in_blocks
from gpugrad.cpu.scratch import Array


def sigmoid(z: Array, y: Array, accumulate: tuple[str, ...] = ()) -> None:
    """Write σ(z) into y; both of any one shape."""
    in_blocks(arithmetic.sigmoid, z, y)
