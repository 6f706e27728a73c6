"""Tiles and splits of products by warpgroups (kernels/gemm_wgmma.cuh), by their shape alone.

A product takes as long as the multiprocessor with the most tiles, and a tile as long as the
busiest of three: tensor cores, shared memory, and what the L2 cache brings. Wide tiles need fewer
bytes a product. The widest have no room for promoted sums: they are for the contractions, or
splits, of one plane that are not promoted before their end.
"""

import math

from gpugrad.planning.problem import WARPGROUP_ROWS, Gemm, cluster

WIDTHS = {1: (256, 192, 128, 64), 2: (192, 128, 64), 3: (192, 128, 64)}  # BLOCK_N, by planes
LONGEST_PART = 8192  # terms of one plane that are added before they are promoted
UNPROMOTED = 256  # the width that has no promoted sums
# Blocks at once, by the blocks of a cluster, on the 132 multiprocessors of an H100 or H200 SXM. A
# cluster lies in one GPC, which has 18 of them or a few less: how many fours fit differs from one
# device to the next, 116 to 128 blocks (by enumeration; CUTLASS counts on 116).
RESIDENT = {1: 132, 2: 132, 4: 120}
STEP = 64  # a split's length is a multiple of it
LEAST_SPLIT = 512  # terms
MOST_WAVES = 4  # of tiles, of a contraction that is split
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

    def planned(width: int) -> Gemm:
        tiles = Gemm(rows, columns, contraction, width, 1, STEP, "wgmma", planes).blocks
        blocks = RESIDENT[math.prod(cluster(width, planes))]
        splits = best_splits(tiles, blocks, contraction, longest) if longest and contraction else 1
        length = max(STEP, math.ceil(math.ceil(contraction / splits) / STEP) * STEP)
        parts = max(1, math.ceil(contraction / length))
        return Gemm(rows, columns, contraction, width, parts, length, "wgmma", planes)

    plans = map(planned, WIDTHS[planes])
    return min((plan for plan in plans if has_room(plan)), key=clocks)


def has_room(plan: Gemm) -> bool:
    """Say whether a tile's threads have registers for its sums, promoted ones if need be."""
    return plan.tile < UNPROMOTED or plan.split_length <= LONGEST_PART


def best_splits(tiles: int, blocks: int, contraction: int, longest: int) -> int:
    """Give the fewest splits, none too long, that keep nearly the most of the blocks at work."""
    least = math.ceil(contraction / longest)
    most = min(math.ceil(contraction / LEAST_SPLIT), MOST_WAVES * blocks // max(1, tiles))
    asked = range(least, max(least, most) + 1)
    work = {splits: at_work(tiles * splits, blocks) for splits in asked}
    best = ENOUGH * max(work.values())
    return next(splits for splits, share in work.items() if share >= best)


def at_work(shares: int, blocks: int) -> float:
    """Give the share of the blocks' time that so many equal parts of work use."""
    return shares / (blocks * max(1, math.ceil(shares / blocks)))


def clocks(plan: Gemm) -> float:
    """Count the clocks of the multiprocessor with the most tiles."""
    waves = math.ceil(plan.blocks * plan.splits / resident(plan, RESIDENT[1]))
    products = WARPGROUP_ROWS * plan.tile * plan.split_length * plan.pairs
    return waves * products / PRODUCTS * slowed(plan, RESIDENT[1])


def resident(plan: Gemm, multiprocessors: int) -> int:
    """Give how many blocks of a product a device has room for at once, one a multiprocessor."""
    return max(1, multiprocessors * RESIDENT[math.prod(plan.cluster)] // RESIDENT[1])


def slowed(plan: Gemm, multiprocessors: int) -> float:
    """Give how many times as long tiles take as tensor cores need for them.

    Bytes a multiply-add: an instruction reads 64 rows and the tile's columns from shared memory, 2
    bytes each. Each plane of a tile's operands is written there once for all pairs; from the L2
    cache, which the multiprocessors at work share, comes a block's part of what its cluster needs.
    """
    width, (down, across) = plan.tile, plan.cluster
    of_tile = 2 * plan.planes / (WARPGROUP_ROWS * width * plan.pairs)
    read = 2 * (64 + width) / (64 * width)
    written = of_tile * (WARPGROUP_ROWS + width)
    brought = of_tile * (WARPGROUP_ROWS / across + width / down)
    brought *= min(1.0, plan.blocks * plan.splits / multiprocessors)
    return PRODUCTS * max(1 / PRODUCTS, (read + written) / SHARED_BYTES, brought / L2_BYTES)
