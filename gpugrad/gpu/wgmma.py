"""How products from planes are launched by wgmma: kernels/gemm_wgmma.cuh."""

import math

from gpugrad.gpu.arguments import Arguments
from gpugrad.gpu.gemm import Launch
from gpugrad.gpu.launches import Launches, TensorMap
from gpugrad.gpu.plane_operands import WORD_BYTES, Operand, Way
from gpugrad.planning.problem import WARPGROUP_ROWS, Gemm

THREADS = 384  # of a block: three warpgroups
CHUNK = 64  # outer indices in a row of a tile that is across
STRIPS_BYTES = 8 * 16 * 40 * 4
BARRIERS_BYTES = 2 * 8  # of a stage
SHARED_LIMIT = 227 << 10
MOST_STAGES = 6
PAIR = 2  # multiprocessors that are always side by side


def way(launches: Launches, plan: Gemm, left: Operand, right: Operand) -> Way:
    """Give what is this kernel's own in a launch."""
    return Way(
        shared_bytes(plan.tile, plan.planes),
        launch_of(launches, plan),
        maps(plan, left, right),
        (plan.splits,),
    )


def launch_of(launches: Launches, plan: Gemm) -> Launch:
    """Give the grid and the block.

    Blocks stay, one on each multiprocessor, and take one tile after another. Of clusters of four,
    nobody knows how many fit on a device at once: there is a block for every tile.
    """
    blocks, cluster = plan.blocks * plan.splits, math.prod(plan.cluster)
    if cluster <= PAIR:
        blocks = min(blocks, launches.sm_count // cluster * cluster)
    return (blocks,), (THREADS,)


def maps(plan: Gemm, left: Operand, right: Operand) -> Arguments:
    """Give the tensor maps of both operands."""
    down, across = plan.cluster
    return (
        TensorMap(left.planes.array, *box(left, WARPGROUP_ROWS, across)),
        TensorMap(right.planes.array, *box(right, plan.tile, down)),
    )


def box(operand: Operand, extent: int, parts: int) -> tuple[tuple[int, int, int], int]:
    """Give what is copied at once of a tile of so many outer indices, and the bytes of its swizzle.

    It is one of so many parts of the tile, of one plane, and across no wider than CHUNK.
    """
    step = block_k(operand.planes.count)
    if operand.along:
        return (1, extent // parts, step), step * WORD_BYTES
    return (1, step // parts, CHUNK), CHUNK * WORD_BYTES


def block_k(planes: int) -> int:
    """Give BLOCK_K of kernels/gemm_wgmma.cuh: the terms of a stage."""
    return 64 if planes == 1 else 32


def stages(tile: int, planes: int) -> tuple[int, int]:
    """Give BLOCK_K and STAGES of kernels/gemm_wgmma.cuh."""
    room = SHARED_LIMIT - STRIPS_BYTES - MOST_STAGES * BARRIERS_BYTES
    return block_k(planes), min(MOST_STAGES, room // stage_bytes(tile, planes))


def stage_bytes(tile: int, planes: int) -> int:
    """Give the bytes of a stage."""
    return planes * (WARPGROUP_ROWS + tile) * block_k(planes) * WORD_BYTES


def shared_bytes(tile: int, planes: int) -> int:
    """Give the bytes of shared memory of stages, strips of results and barriers."""
    _, count = stages(tile, planes)
    return count * (stage_bytes(tile, planes) + BARRIERS_BYTES) + STRIPS_BYTES
