"""dz = dy · y · (1 − y)."""

from gpugrad.cpu.arithmetic import sigmoid_gradient
from gpugrad.cpu.elementwise import in_blocks
from gpugrad.cpu.scratch import Array, Scratch


def sigmoid_backward(
    dy: Array, y: Array | None, z: Array | None, dz: Array, accumulate: tuple[str, ...] = ()
) -> None:
    """Write dz; all of any one shape."""

    def block(dy: Array, y: Array | None, z: Array | None, dz: Array, scratch: Scratch) -> None:
        sigmoid_gradient(dy, y, z, scratch, out=dz)

    in_blocks(block, dy, y, z, dz)
