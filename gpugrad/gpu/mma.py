"""How products from planes are launched by mma.sync: kernels/gemm_mma.cuh."""

from gpugrad.gpu.launches import Launches
from gpugrad.gpu.plane_operands import WORD_BYTES, Operand, Way
from gpugrad.planning.plan import LARGE_TILE
from gpugrad.planning.problem import Gemm


def way(launches: Launches, plan: Gemm, left: Operand, right: Operand) -> Way:
    """Give what is this kernel's own in a launch: a block for each tile of each split."""
    return Way(shared_bytes(plan.tile, plan.planes))


def stages(tile: int, planes: int) -> tuple[int, int]:
    """Give BLOCK_K and STAGES of kernels/gemm_mma.cuh."""
    step = 64 if planes == 1 else 16 if (planes, tile) == (3, LARGE_TILE) else 32
    return step, 4 if step == 16 else 3


def shared_bytes(tile: int, planes: int) -> int:
    """Give the bytes of shared memory that the stages of both operands take."""
    step, count = stages(tile, planes)
    return count * planes * 2 * tile * step * WORD_BYTES
