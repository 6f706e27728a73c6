"""What a call computes, and its plan: a call without its data, its steps, and the choice of both.

The choice is made in choice.py, which is imported where a call is planned.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from gpugrad.operations import OPERATIONS, PRODUCTS, elements

if TYPE_CHECKING:
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

    configuration: "GemmConfiguration | FusedConfiguration"

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, as in `gpugrad.planning.problem.Plan`."""
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
    configuration: "GemmConfiguration"

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
    configuration: "FusedConfiguration"

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
    configuration: "RowSums"


Step = Gemm | FusedLayer | ColumnSum


@dataclass(frozen=True)
class Plan:
    """What a call will do.

    Attributes
    ----------
    op : str
    device : {"cpu", "gpu"}
    algorithm : {"numpy", "elementwise", "column-sum", "ffma", "mma", "wgmma", "dmma"}
        On a GPU, matrix products are computed by IEEE multiply-adds ("ffma"), on tensor cores from
        16-bit planes ("mma", on Hopper "wgmma"), or on float64 tensor cores ("dmma"). Each
        product's Gemm has its own.
    cpu_seconds, gpu_seconds : float or None
        What the call should take on either device, transfers included. Predicted, by a simple
        model of rates. None where that device cannot compute the call: the CPU if the arrays are
        on a GPU, the GPU if there is none or if the CPU is asked for.
    reason : str
        Why this device and algorithm, in words.
    steps : tuple
        Name and Gemm or ColumnSum of each part of the work on a GPU; or "layer" and its
        FusedLayer, where one launch does all of it, or all but what has a step of its own.
    """

    op: str
    device: str
    algorithm: str
    cpu_seconds: float | None
    gpu_seconds: float | None
    reason: str
    steps: tuple[tuple[str, Step], ...] = ()

    @property
    def predicted_seconds(self) -> float:
        """What the call should take on the device of the plan; NaN where that was not asked."""
        seconds = self.cpu_seconds if self.device == "cpu" else self.gpu_seconds
        return math.nan if seconds is None else seconds

    def gemm(self, name: str) -> Gemm:
        """Return the step that computes a product."""
        return cast("Gemm", dict(self.steps)[name])

    def column_sum(self, name: str) -> ColumnSum:
        """Return the step that sums over rows."""
        return cast("ColumnSum", dict(self.steps)[name])

    @property
    def layer(self) -> FusedLayer | None:
        """The step that computes all gradients of a layer in one launch, if that is the plan."""
        return cast("FusedLayer | None", dict(self.steps).get("layer"))

    @property
    def dw_apart(self) -> Gemm | None:
        """The step of a dw that does not come from the launch of the rest, where there is one."""
        return None if self.layer is None else cast("Gemm | None", dict(self.steps).get("dw"))

    @property
    def planes(self) -> dict[str, int]:
        """Planes of the operands of each product, by its result; 0 where there are none."""
        layer = dict.fromkeys(("dx", "dw"), self.layer.planes) if self.layer else {}
        products = {name: one for name, one in self.steps if name not in ("layer", "db")}
        return layer | {name: cast("Gemm", one).planes for name, one in products.items()}
