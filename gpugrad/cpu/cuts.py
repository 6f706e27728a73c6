"""Where work is cut: by shapes alone, so that no result depends on the number of cores."""

from itertools import pairwise
from typing import Any

BLOCK = 1 << 17  # elements of a block: 512 KiB of float32, in a core's second-level cache
MAX_RUNS = 64  # of blocks: tasks enough for any number of cores
MIN_ROWS = 256  # of a block that the BLAS multiplies: with fewer it spends its time on w


def pieces(extent: int, length: int) -> int:
    """Return how many pieces of at most `length` [0, extent) is cut into, at least one."""
    return max(1, -(-extent // length))


def cut(extent: int, length: int, first: int = 0) -> list[slice]:
    """Cut `extent` from `first` on into equal pieces of at most `length`, at least one."""
    return cut_into(extent, pieces(extent, length), first)


def cut_into(extent: int, count: int, first: int = 0) -> list[slice]:
    """Cut `extent` from `first` on into so many equal pieces."""
    edges = [first + i * extent // count for i in range(count + 1)]
    return [slice(*one) for one in pairwise(edges)]


def parts(of: Any, *arrays: Any) -> list[Any]:
    """Return a part of each array; None stays."""
    return [None if array is None else array[of] for array in arrays]


def runs(blocks: list[slice], least: int = 1, most: int = MAX_RUNS) -> list[list[slice]]:
    """Gather blocks into runs, a task each: of at least so many blocks, and at most so many."""
    count = max(1, min(most, len(blocks) // least))
    return [blocks[run] for run in cut_into(len(blocks), count)]


def cut_rows(rows: int, width: int) -> list[slice]:
    """Cut the rows of a product, whose operands are so wide, into blocks.

    Of float32 rows of 64, 128, 256 and 512 elements, blocks of 4096, 2048, 1024 and 512 took 1.07,
    0.93, 1.02 and 1.02 times as long as two products of all rows at once; of 128 rows, 1.1 to 1.5.
    Of 1024 elements, a layer of 4096 rows took 53, 47, 42 and 43 ms in blocks of 256, 512, 1024 and
    2048 rows.
    """
    length = max(1, 2 * BLOCK // width, min(4 * MIN_ROWS, 8 * BLOCK // width))
    return cut(rows, min(length, max(MIN_ROWS, length // 4, rows // 8)))
