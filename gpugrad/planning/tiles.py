"""Tiles and splits of products and of sums over rows, by shape and dtype alone."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpugrad.planning import configurations
from gpugrad.planning.configurations import GemmConfiguration, Wgmma
from gpugrad.planning.problem import ITEMSIZE, ColumnSum, Gemm

LARGE_TILE_FROM = 96  # large tiles from this many of them: fewer would leave most of a GPU idle
LARGE_TILE_PADDING = 1.2  # and not where they compute so much more than small ones
SPLIT_BLOCKS = 512  # a contraction over the batch is split until about so many blocks work
SPLIT_ROWS = 512  # and no further than this many rows a split
COLUMN_SUM_BLOCKS = 1024
ROWS_A_LANE = 8  # of a sum over rows, at least
VECTOR_BYTES = 16  # one access of one thread

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


class Product(NamedTuple):
    """A product without a tile; `split` tells whether the contraction may be split."""

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
    """Choose tile and split of a product by its shape alone.

    Parameters
    ----------
    rows, columns, contraction : int
    dtype : str
    split : bool
        Whether the contraction may be split. Not where each row of the result must be
        independent of how many rows there are.
    algorithm, planes
        As in `Gemm`. Splits of a sum by tensor cores are as those by multiply-adds, or shorter.
    """
    return CHOOSE[algorithm](Product(rows, columns, contraction, dtype, planes, split))


def ffma(product: Product) -> Gemm:
    """Choose tile and split of a product by IEEE multiply-adds."""
    return _square(product, configurations.FFMA[product.dtype])


def mma(product: Product) -> Gemm:
    """Choose tile and split of a product by mma.sync."""
    return _square(product, configurations.MMA[product.planes])


def dmma(product: Product) -> Gemm:
    """Choose tile and split of a product on float64 tensor cores."""
    return _square(product, configurations.DMMA)


def wgmma(product: Product) -> Gemm:
    """Choose tile and split of a product by wgmma, or by mma.sync if TMA cannot address it.

    The widest tiles have no registers for promoted sums: they are for contractions, or splits, of
    one plane with at most MAX_PART terms. Splits are no longer than those by mma.sync, so that sums
    are no less accurate.
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
        plan for one, plan in plans if not one.IN_ONE_PART or plan.split_length <= one.MAX_PART
    )
    return min(fitting, key=clocks)


CHOOSE: dict[str, Callable[[Product], Gemm]] = {
    "ffma": ffma,
    "mma": mma,
    "wgmma": wgmma,
    "dmma": dmma,
}


def _square(product: Product, tiles: Sequence[GemmConfiguration]) -> Gemm:
    """Choose among square tiles: the largest that are enough and compute little more."""
    rows, columns, contraction = product[:3]
    small = tiles[0]
    least = max(1, small.blocks(rows, columns)) * small.BLOCK_M * small.BLOCK_N

    def enough(one: GemmConfiguration) -> bool:
        count = one.blocks(rows, columns)
        padded = count * one.BLOCK_M * one.BLOCK_N / least
        return count >= LARGE_TILE_FROM and padded <= LARGE_TILE_PADDING

    tile = next((one for one in reversed(tiles[1:]) if enough(one)), small)
    count, splits = tile.blocks(rows, columns), 1
    if product.split and count:
        splits = min(math.ceil(contraction / SPLIT_ROWS), SPLIT_BLOCKS // count)
    step = tile.split_step
    length = max(step, math.ceil(math.ceil(contraction / max(1, splits)) / step) * step)
    return Gemm(rows, columns, contraction, max(1, math.ceil(contraction / length)), length, tile)


def column_sum(n: int, m: int, dtype: str) -> ColumnSum:
    """Choose the block and the split of a sum over rows by its shape alone."""
    configuration = configurations.row_sums(ITEMSIZE[dtype])
    packs = max(1, math.ceil(m / (VECTOR_BYTES // ITEMSIZE[dtype])))
    across, down = configuration.lanes(packs)
    blocks = math.ceil(packs / across)
    splits = min(math.ceil(n / (down * ROWS_A_LANE)), math.ceil(COLUMN_SUM_BLOCKS / blocks))
    length = max(1, math.ceil(n / max(1, splits)))
    splits = max(1, math.ceil(n / length))
    return ColumnSum((across, down), blocks, splits, length, configuration)


# ---- what products by wgmma take (kernels/gemm_wgmma.cuh)
#
# A product takes as long as the multiprocessor with the most tiles. A tile takes as long as the
# slowest of tensor cores, shared memory and the L2 cache. Wide tiles read fewer bytes a product.


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
