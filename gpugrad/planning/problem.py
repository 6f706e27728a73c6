"""A call without its data, the steps that compute it on a GPU, and its plan.

choice.py makes the plan. It is imported when a call is planned, not with the package.
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
    """A call without its data.

    Attributes
    ----------
    op : str
        Name of the public function.
    n, k, m : int
        Rows of the batch, inputs and outputs of the layer. An element-wise function of m elements
        has n = 1 and k = 0.
    dtype : str
    wrt : tuple of str
        What to differentiate with respect to; empty for functions without `wrt`.
    reads : int
        Matrices (n, m) that the element-wise part reads.
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
        """(n, k, m)."""
        return self.n, self.k, self.m

    @property
    def results(self) -> tuple[str, ...]:
        """The results that are computed."""
        return OPERATIONS[self.op].wanted(self.wrt)

    @property
    def computes_dz(self) -> bool:
        """Whether dz is computed."""
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
    """List a call's products: (result, M, N, K, split-K allowed)."""
    extents = dict(zip("nkm", problem.size, strict=True))
    found = []
    for name in problem.results:
        if name in OPERATIONS[problem.op].products:
            rows, columns, contraction, split = PRODUCTS[name]
            found.append((name, extents[rows], extents[columns], extents[contraction], split))
    return tuple(found)


class _WithProducts:
    """A step with matrix products."""

    configuration: "GemmConfiguration | FusedConfiguration"

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, as in `gpugrad.planning.problem.Plan`."""
        return self.configuration.algorithm

    @property
    def planes(self) -> int:
        """16-bit planes of each operand; 0 if there are none."""
        return self.configuration.planes


@dataclass(frozen=True)
class Gemm(_WithProducts):
    """The step of a matrix product.

    Attributes
    ----------
    rows, columns, contraction : int
        M, N and K of the GEMM.
    splits : int
        Splits of K (split-K); more than one need a workspace.
    split_length : int
        Terms per split, a multiple of the configuration's `split_step`.
    configuration : GemmConfiguration
        Algorithm and tile of the kernel.
    """

    rows: int
    columns: int
    contraction: int
    splits: int
    split_length: int
    configuration: "GemmConfiguration"

    @property
    def pairs(self) -> int:
        """Plane products per product of two matrices."""
        return max(1, self.planes * (self.planes + 1) // 2)

    @property
    def blocks(self) -> int:
        """Thread blocks of one split, in whole clusters."""
        return self.configuration.blocks(self.rows, self.columns)

    def grid(self, sm_count: int) -> tuple[int, ...]:
        """Return the grid of the launch on a device with `sm_count` multiprocessors."""
        return self.configuration.grid(self.blocks, self.splits, sm_count)

    @property
    def workspace_elements(self) -> int:
        """Partial sums in the workspace."""
        return self.splits * self.rows * self.columns if self.splits > 1 else 0


@dataclass(frozen=True)
class FusedLayer(_WithProducts):
    """The step of the fused backward kernel, which computes dx, dw and db.

    Attributes
    ----------
    n, k, m : int
        As in `Problem`.
    splits : int
        Splits of the rows; more than one need a workspace.
    split_length : int
        Rows per split, a multiple of the configuration's ROWS.
    configuration : FusedConfiguration
        A configuration with room for m outputs.
    """

    n: int
    k: int
    m: int
    splits: int
    split_length: int
    configuration: "FusedConfiguration"

    @property
    def pairs(self) -> int:
        """Plane products per product of two matrices; that of the first planes counts twice."""
        return 7 if self.planes == 3 else 1

    @property
    def blocks(self) -> int:
        """Thread blocks of one split."""
        return max(1, math.ceil(self.k / self.configuration.INPUTS))

    @property
    def workspace_elements(self) -> int:
        """Partial sums of dw and db in the workspace."""
        return self.splits * (self.k + 1) * self.m if self.splits > 1 else 0


@dataclass(frozen=True)
class ColumnSum:
    """The step of the column sums of an (n, m) matrix.

    Attributes
    ----------
    lanes : tuple of int
        Threads of a block along columns and along rows.
    column_blocks : int
        Thread blocks along columns.
    splits : int
        Splits of the rows.
    split_length : int
        Rows per split.
    configuration : RowSums
    """

    lanes: tuple[int, int]
    column_blocks: int
    splits: int
    split_length: int
    configuration: "RowSums"


Step = Gemm | FusedLayer | ColumnSum


@dataclass(frozen=True)
class Plan:
    """The plan of a call.

    Attributes
    ----------
    op : str
    device : {"cpu", "gpu"}
    algorithm : {"numpy", "elementwise", "column-sum", "ffma", "mma", "wgmma", "dmma"}
        On a GPU, matrix products use FFMA instructions ("ffma"), tensor cores with 16-bit planes
        ("mma", on Hopper "wgmma"), or float64 tensor cores ("dmma"). The Gemm of each product has
        an algorithm of its own.
    cpu_seconds, gpu_seconds : float or None
        Predicted time on each device, transfers included. None if the device cannot compute the
        call: the CPU if the arrays are on a GPU, the GPU if there is none or `device` is "cpu".
    reason : str
        The reason for the device and the algorithm.
    steps : tuple
        Name and Gemm or ColumnSum of each step on a GPU; "layer" and a FusedLayer for the fused
        backward kernel; then only dw may have another step.
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
        """Predicted time on the device of the plan; NaN if it was not predicted."""
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
        """The step of the fused backward kernel, or None."""
        return cast("FusedLayer | None", dict(self.steps).get("layer"))

    @property
    def separate_dw(self) -> Gemm | None:
        """The step of dw besides the fused kernel, or None."""
        return None if self.layer is None else cast("Gemm | None", dict(self.steps).get("dw"))

    @property
    def planes(self) -> dict[str, int]:
        """16-bit planes of the operands of each product, by result; 0 if there are none."""
        layer = dict.fromkeys(("dx", "dw"), self.layer.planes) if self.layer else {}
        products = {name: one for name, one in self.steps if name not in ("layer", "db")}
        return layer | {name: cast("Gemm", one).planes for name, one in products.items()}
