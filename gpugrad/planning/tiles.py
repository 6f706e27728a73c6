"""Tiles and splits of products and column sums, by shape and dtype alone."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpugrad.planning import configurations
from gpugrad.planning.configurations import GemmConfiguration, Wgmma
from gpugrad.planning.problem import ITEMSIZE, ColumnSum, Gemm

MIN_LARGE_TILES = 96  # fewer large tiles would leave most of a GPU idle
MAX_LARGE_TILE_PADDING = 1.2  # elements that large tiles compute relative to small ones
SPLIT_BLOCKS = 512  # thread blocks that split-K aims at
SPLIT_ROWS = 512  # least rows per split
COLUMN_SUM_BLOCKS = 1024
MIN_ROWS_PER_LANE = 8  # of a column sum
VECTOR_BYTES = 16  # per access and thread

# Resident thread blocks, by cluster size, on the 132 SMs of an H100 or H200 SXM. A cluster lies in
# one GPC, which has at most 18 SMs: 116 to 128 blocks in clusters of four fit, by enumeration of
# GPC sizes (CUTLASS assumes 116).
RESIDENT = {1: 132, 2: 132, 4: 120}
MIN_SPLIT = 512  # terms
MAX_WAVES = 4  # of tiles with split-K
ENOUGH = 0.95  # utilisation relative to that of the best splits
MAX_EXTENT = 2**31 - 2**10  # TMA coordinates are 32-bit; tiles reach beyond the end
# Per clock and SM:
TENSOR_CORE_RATE = 2048  # multiply-adds
SHARED_BYTES = 128
L2_BYTES = 27.5  # 6.65 TB/s of an H100 at 1.83 GHz, as published


class Product(NamedTuple):
    """A product without a tile; `split` allows split-K."""

    rows: int
    columns: int
    contraction: int
    dtype: str
    planes: int
    split: bool


def gemm(
    rows: int,
    columns: int,
    contraction: int,
    dtype: str,
    *,
    split: bool,
    algorithm: str = "ffma",
    planes: int = 0,
) -> Gemm:
    """Choose tile and splits of a product by its shape alone.

    Parameters
    ----------
    rows, columns, contraction : int
    dtype : str
    split : bool
        Whether split-K is allowed. It is not if a row of the result must not depend on the number
        of rows.
    algorithm, planes
        As in `Gemm`. Splits on tensor cores are no longer than those by FFMA.
    """
    return CHOOSE[algorithm](Product(rows, columns, contraction, dtype, planes, split))


def ffma(product: Product) -> Gemm:
    """Choose tile and splits of a product by FFMA."""
    return _square(product, configurations.FFMA[product.dtype])


def mma(product: Product) -> Gemm:
    """Choose tile and splits of a product by mma.sync."""
    return _square(product, configurations.MMA[product.planes])


def dmma(product: Product) -> Gemm:
    """Choose tile and splits of a product by DMMA."""
    return _square(product, configurations.DMMA)


def wgmma(product: Product) -> Gemm:
    """Choose tile and splits of a product by wgmma, or by mma.sync if TMA cannot address it.

    The widest tiles have no registers for promoted sums: they are for contractions, or splits, of
    one plane with at most PROMOTION_INTERVAL terms. Splits are no longer than those by mma.sync,
    so that sums are no less accurate.
    """
    rows, columns, contraction = product[:3]
    by_mma = mma(product)
    if max(product[:3]) > MAX_EXTENT:
        return by_mma
    longest = by_mma.split_length if product.split else 0

    def planned(one: Wgmma) -> Gemm:
        tiles, step = one.blocks(rows, columns), one.split_step
        blocks = RESIDENT[math.prod(one.cluster)]
        splits = best_splits(tiles, blocks, contraction, longest) if longest and contraction else 1
        length = max(step, math.ceil(math.ceil(contraction / splits) / step) * step)
        parts = max(1, math.ceil(contraction / length))
        return Gemm(rows, columns, contraction, parts, length, one)

    widest_first = reversed(configurations.WGMMA[product.planes])
    plans = [(one, planned(one)) for one in widest_first]
    fitting = (
        plan
        for one, plan in plans
        if not one.SINGLE_INTERVAL or plan.split_length <= one.PROMOTION_INTERVAL
    )
    return min(fitting, key=clocks)


CHOOSE: dict[str, Callable[[Product], Gemm]] = {
    "ffma": ffma,
    "mma": mma,
    "wgmma": wgmma,
    "dmma": dmma,
}


def _square(product: Product, tiles: Sequence[GemmConfiguration]) -> Gemm:
    """Choose the largest square tile that fills the GPU with little padding."""
    rows, columns, contraction = product[:3]
    small = tiles[0]
    least = max(1, small.blocks(rows, columns)) * small.BLOCK_M * small.BLOCK_N

    def fits(one: GemmConfiguration) -> bool:
        count = one.blocks(rows, columns)
        padded = count * one.BLOCK_M * one.BLOCK_N / least
        return count >= MIN_LARGE_TILES and padded <= MAX_LARGE_TILE_PADDING

    tile = next((one for one in reversed(tiles[1:]) if fits(one)), small)
    count, splits = tile.blocks(rows, columns), 1
    if product.split and count:
        splits = min(math.ceil(contraction / SPLIT_ROWS), SPLIT_BLOCKS // count)
    step = tile.split_step
    length = max(step, math.ceil(math.ceil(contraction / max(1, splits)) / step) * step)
    return Gemm(rows, columns, contraction, max(1, math.ceil(contraction / length)), length, tile)


def column_sum(n: int, m: int, dtype: str) -> ColumnSum:
    """Choose thread blocks and splits of a column sum by its shape alone."""
    configuration = configurations.row_sums(ITEMSIZE[dtype])
    packs = max(1, math.ceil(m / (VECTOR_BYTES // ITEMSIZE[dtype])))
    across, down = configuration.lanes(packs)
    blocks = math.ceil(packs / across)
    splits = min(math.ceil(n / (down * MIN_ROWS_PER_LANE)), math.ceil(COLUMN_SUM_BLOCKS / blocks))
    length = max(1, math.ceil(n / max(1, splits)))
    splits = max(1, math.ceil(n / length))
    return ColumnSum((across, down), blocks, splits, length, configuration)


# ---- the time of products by wgmma (kernels/gemm_wgmma.cuh)
#
# A product takes as long as the SM with the most tiles, a tile as long as the slowest of tensor
# cores, shared memory and the L2 cache. Wider tiles read fewer bytes per multiply-add.


def best_splits(tiles: int, blocks: int, contraction: int, longest: int) -> int:
    """Return the fewest splits, none longer than `longest`, with nearly the best utilisation."""
    least = math.ceil(contraction / longest)
    most = min(math.ceil(contraction / MIN_SPLIT), MAX_WAVES * blocks // max(1, tiles))
    candidates = range(least, max(least, most) + 1)
    work = {splits: utilisation(tiles * splits, blocks) for splits in candidates}
    best = ENOUGH * max(work.values())
    return next(splits for splits, share in work.items() if share >= best)


def utilisation(parts: int, blocks: int) -> float:
    """Return the utilisation of resident blocks by so many equal parts of work."""
    return parts / (blocks * max(1, math.ceil(parts / blocks)))


def clocks(plan: Gemm) -> float:
    """Return the clocks of the SM with the most tiles."""
    waves = math.ceil(plan.blocks * plan.splits / resident(plan, RESIDENT[1]))
    tile = plan.configuration.BLOCK_M * plan.configuration.BLOCK_N
    products = tile * plan.split_length * plan.pairs
    return waves * products / TENSOR_CORE_RATE * slowdown(plan, RESIDENT[1])


def resident(plan: Gemm, multiprocessors: int) -> int:
    """Return the resident blocks of a product on a device, at most one per SM."""
    return max(1, multiprocessors * RESIDENT[math.prod(plan.configuration.cluster)] // RESIDENT[1])


def slowdown(plan: Gemm, multiprocessors: int) -> float:
    """Return the time of a tile relative to its time on tensor cores alone.

    Bytes per multiply-add: an instruction reads 64 rows and the tile's columns from shared memory,
    2 bytes each. Each plane of the operands is written there once for all pairs. A block reads its
    part of the cluster's operands from the L2 cache, whose bandwidth the active SMs share.
    """
    height, width = plan.configuration.BLOCK_M, plan.configuration.BLOCK_N
    down, across = plan.configuration.cluster
    of_tile = 2 * plan.planes / (height * width * plan.pairs)
    read = 2 * (64 + width) / (64 * width)
    written = of_tile * (height + width)
    brought = of_tile * (height / across + width / down)
    brought *= min(1.0, plan.blocks * plan.splits / multiprocessors)
    return TENSOR_CORE_RATE * max(
        1 / TENSOR_CORE_RATE, (read + written) / SHARED_BYTES, brought / L2_BYTES
    )
