"""What there is to compute: a call without its data, and the parts that it comes down to."""

import math
from dataclasses import dataclass

from gpugrad.operations import OPERATIONS, PRODUCTS, elements
from gpugrad.planning.configurations import FusedConfiguration, GemmConfiguration, RowSums

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ACCUMULATOR_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 4, "bfloat16": 4}


@dataclass(frozen=True)
class Problem:
    """One call without its data.

    Attributes
    ----------
    op : str
        Name of the public function.
    n, k, m : int
        Rows of the batch, inputs and outputs of the layer. Element-wise functions have n = 1,
        k = 0 and m elements.
    dtype : str
    wrt : tuple of str
        What is differentiated; empty for functions without that choice.
    reads : int
        Matrices of n × m that the element-wise part reads.
    """

    op: str
    n: int
    k: int
    m: int
    dtype: str
    wrt: tuple[str, ...] = ()
    reads: int = 1

    @property
    def size(self) -> tuple[int, int, int]:
        """Rows, inputs and outputs."""
        return self.n, self.k, self.m

    @property
    def results(self) -> tuple[str, ...]:
        """The results that are computed."""
        return OPERATIONS[self.op].wanted(self.wrt)

    @property
    def computes_dz(self) -> bool:
        """Whether the gradient at the activation's input is computed."""
        return OPERATIONS[self.op].takes_z and bool(self.results)

    @property
    def flops(self) -> float:
        """Floating-point operations of the products."""
        return float(sum(2 * math.prod(one[1:4]) for one in products(self)))

    @property
    def bytes_in(self) -> int:
        """Bytes of the inputs."""
        n, k, m = self.size
        return ITEMSIZE[self.dtype] * (self.reads * n * m + n * k + k * m)

    @property
    def bytes_out(self) -> int:
        """Bytes of the results."""
        return ITEMSIZE[self.dtype] * elements(self.results, self.size)


def products(problem: Problem) -> tuple[tuple[str, int, int, int, bool], ...]:
    """List a call's matrix products: result, its rows and columns, contraction, may it be split."""
    extents = dict(zip("nkm", problem.size, strict=True))
    found = []
    for name in problem.results:
        if name in OPERATIONS[problem.op].products:
            rows, columns, contraction, split = PRODUCTS[name]
            found.append((name, extents[rows], extents[columns], extents[contraction], split))
    return tuple(found)


class _WithProducts:
    """A step that has products, by a kernel of some configuration."""

    configuration: GemmConfiguration | FusedConfiguration

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, as in `gpugrad.planning.plan.Plan`."""
        return self.configuration.algorithm

    @property
    def planes(self) -> int:
        """The 16-bit planes of each operand, 0 where there are none."""
        return self.configuration.planes


@dataclass(frozen=True)
class Gemm(_WithProducts):
    """How one product of matrices is computed.

    Attributes
    ----------
    rows, columns, contraction : int
        Extents of the result and of the sum.
    splits : int
        Parts that the contraction is cut into; more than one need a workspace.
    split_length : int
        Terms a part, a multiple of the configuration's `split_step`.
    configuration : GemmConfiguration
        Of the kernel: its algorithm and tile.
    """

    rows: int
    columns: int
    contraction: int
    splits: int
    split_length: int
    configuration: GemmConfiguration

    @property
    def pairs(self) -> int:
        """Products of planes that make one of numbers."""
        return max(1, self.planes * (self.planes + 1) // 2)

    @property
    def blocks(self) -> int:
        """Tiles of one split, in whole clusters."""
        return self.configuration.blocks(self.rows, self.columns)

    def grid(self, sm_count: int) -> tuple[int, ...]:
        """Return the grid of a launch on so many multiprocessors."""
        return self.configuration.grid(self.blocks, self.splits, sm_count)

    @property
    def workspace_elements(self) -> int:
        """Accumulators that the splits leave for the second stage."""
        return self.splits * self.rows * self.columns if self.splits > 1 else 0


@dataclass(frozen=True)
class FusedLayer(_WithProducts):
    """How dx, dw and db of a layer are computed in one launch.

    Attributes
    ----------
    n, k, m : int
        As those of the problem.
    splits : int
        Parts that the rows are cut into; more than one need a workspace.
    split_length : int
        Rows a part, a multiple of the configuration's ROWS.
    configuration : FusedConfiguration
        Of the kernel, with room for m outputs.
    """

    n: int
    k: int
    m: int
    splits: int
    split_length: int
    configuration: FusedConfiguration

    @property
    def pairs(self) -> int:
        """Products of planes that make one of numbers: that of the first ones counts twice."""
        return 7 if self.planes == 3 else 1

    @property
    def blocks(self) -> int:
        """Blocks of threads of one split."""
        return max(1, math.ceil(self.k / self.configuration.INPUTS))

    @property
    def workspace_elements(self) -> int:
        """Accumulators that the splits leave for the second stage, for dw and db."""
        return self.splits * (self.k + 1) * self.m if self.splits > 1 else 0


@dataclass(frozen=True)
class ColumnSum:
    """How the columns of an (n, m) matrix are summed.

    Attributes
    ----------
    lanes : tuple of int
        Threads of a block along columns and along rows.
    column_blocks : int
    splits : int
        Parts that the rows are cut into.
    split_length : int
        Rows a part.
    configuration : RowSums
        Of the kernel.
    """

    lanes: tuple[int, int]
    column_blocks: int
    splits: int
    split_length: int
    configuration: RowSums
