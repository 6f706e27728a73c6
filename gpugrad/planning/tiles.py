"""Tiles and splits of products and of sums over rows, by shape and dtype alone."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpugrad.planning import configurations, warpgroup_tiles
from gpugrad.planning.configurations import GemmConfiguration
from gpugrad.planning.problem import ITEMSIZE, ColumnSum, Gemm

LARGE_TILE_FROM = 96  # large tiles from this many of them: fewer would leave most of a GPU idle
LARGE_TILE_PADDING = 1.2  # and not where they compute so much more than small ones
SPLIT_BLOCKS = 512  # a contraction over the batch is split until about so many blocks work
SPLIT_ROWS = 512  # and no further than this many rows a split
COLUMN_SUM_BLOCKS = 1024
ROWS_A_LANE = 8  # of a sum over rows, at least
VECTOR_BYTES = 16  # one access of one thread


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
    """Choose tile and split of a product by wgmma, or by mma.sync what TMA cannot address."""
    shape, by_mma = product[:3], mma(product)
    if not warpgroup_tiles.fits(*shape):
        return by_mma
    longest = by_mma.split_length if product.split else 0
    return warpgroup_tiles.gemm(*shape, product.planes, longest)


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
