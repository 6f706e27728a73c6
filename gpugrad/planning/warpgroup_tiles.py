"""Tiles and splits of products by warpgroups (kernels/gemm_wgmma.cuh), by their shape alone.

A product takes as long as the multiprocessor with the most tiles, and a tile as long as the
busiest of three: tensor cores, shared memory, and what the L2 cache brings. Wide tiles need fewer
bytes a product. The widest have no room for promoted sums: they are for the contractions, or
splits, of one plane that are not promoted before their end.
"""

import math

from gpugrad.planning import configurations
from gpugrad.planning.configurations import Wgmma
from gpugrad.planning.problem import Gemm

# Blocks at once, by the blocks of a cluster, on the 132 multiprocessors of an H100 or H200 SXM. A
# cluster lies in one GPC, which has 18 of them or a few less: how many fours fit differs from one
# device to the next, 116 to 128 blocks (by enumeration; CUTLASS counts on 116).
RESIDENT = {1: 132, 2: 132, 4: 120}
MIN_SPLIT = 512  # terms
MAX_WAVES = 4  # of tiles, of a contraction that is split
ENOUGH = 0.95  # of the multiprocessors' work that the best splits have
MAX_EXTENT = 2**31 - 2**10  # coordinates of TMA are 32-bit; tiles go beyond the end
# A clock and multiprocessor:
PRODUCTS = 2048  # multiply-adds of tensor cores
SHARED_BYTES = 128
L2_BYTES = 27.5  # 6.65 TB/s of an H100 at 1.83 GHz


def fits(rows: int, columns: int, contraction: int) -> bool:
    """Return whether TMA can address the operands of a product."""
    return max(rows, columns, contraction) <= MAX_EXTENT


def gemm(rows: int, columns: int, contraction: int, planes: int, longest: int = 0) -> Gemm:
    """Choose the width of tiles and the splits that take the least time.

    Parameters
    ----------
    rows, columns, contraction, planes : int
    longest : int
        Terms of a split; 0 if the contraction may not be split. Longer sums would be less accurate
        than the multiply-adds that have such splits: where they are repaired, they are the same.
    """

    def planned(one: Wgmma) -> Gemm:
        tiles, step = one.blocks(rows, columns), one.split_step
        blocks = RESIDENT[math.prod(one.cluster)]
        splits = best_splits(tiles, blocks, contraction, longest) if longest and contraction else 1
        length = max(step, math.ceil(math.ceil(contraction / splits) / step) * step)
        parts = max(1, math.ceil(contraction / length))
        return Gemm(rows, columns, contraction, parts, length, one)

    wide_first = [(one, planned(one)) for one in reversed(configurations.WGMMA[planes])]
    with_room = (
        plan for one, plan in wide_first if not one.IN_ONE_PART or plan.split_length <= one.MAX_PART
    )
    return min(with_room, key=clocks)


def best_splits(tiles: int, blocks: int, contraction: int, longest: int) -> int:
    """Return the fewest splits, none too long, that keep nearly the most of the blocks at work."""
    least = math.ceil(contraction / longest)
    most = min(math.ceil(contraction / MIN_SPLIT), MAX_WAVES * blocks // max(1, tiles))
    asked = range(least, max(least, most) + 1)
    work = {splits: at_work(tiles * splits, blocks) for splits in asked}
    best = ENOUGH * max(work.values())
    return next(splits for splits, share in work.items() if share >= best)


def at_work(shares: int, blocks: int) -> float:
    """Return the share of the blocks' time that so many equal parts of work use."""
    return shares / (blocks * max(1, math.ceil(shares / blocks)))


def clocks(plan: Gemm) -> float:
    """Count the clocks of the multiprocessor with the most tiles."""
    waves = math.ceil(plan.blocks * plan.splits / resident(plan, RESIDENT[1]))
    tile = plan.configuration.BLOCK_M * plan.configuration.BLOCK_N
    products = tile * plan.split_length * plan.pairs
    return waves * products / PRODUCTS * slowed(plan, RESIDENT[1])


def resident(plan: Gemm, multiprocessors: int) -> int:
    """Return how many blocks of a product a device has room for at once, one a multiprocessor."""
    return max(1, multiprocessors * RESIDENT[math.prod(plan.configuration.cluster)] // RESIDENT[1])


def slowed(plan: Gemm, multiprocessors: int) -> float:
    """Return how many times as long tiles take as tensor cores need for them.

    Bytes a multiply-add: an instruction reads 64 rows and the tile's columns from shared memory, 2
    bytes each. Each plane of a tile's operands is written there once for all pairs; from the L2
    cache, which the multiprocessors at work share, comes a block's part of what its cluster needs.
    """
    height, width = plan.configuration.BLOCK_M, plan.configuration.BLOCK_N
    down, across = plan.configuration.cluster
    of_tile = 2 * plan.planes / (height * width * plan.pairs)
    read = 2 * (64 + width) / (64 * width)
    written = of_tile * (height + width)
    brought = of_tile * (height / across + width / down)
    brought *= min(1.0, plan.blocks * plan.splits / multiprocessors)
    return PRODUCTS * max(1 / PRODUCTS, (read + written) / SHARED_BYTES, brought / L2_BYTES)
