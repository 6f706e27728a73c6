"""What there is to compute: a call without its data, and the parts that it comes down to."""

import math
from dataclasses import dataclass

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ACCUMULATOR_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 4, "bfloat16": 4}
WARPGROUP_ROWS = 128  # BLOCK_M of kernels/gemm_wgmma.cuh


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
    def flops(self) -> float:
        """Floating-point operations of the products."""
        product = 2.0 * self.n * self.k * self.m
        if self.op == "dense_sigmoid":
            return product
        if self.op in ("matmul_backward", "dense_sigmoid_backward"):
            return product * len({"x", "w"} & set(self.wrt))
        return 0.0

    @property
    def bytes_in(self) -> int:
        """Bytes of the inputs."""
        n, k, m, size = self.n, self.k, self.m, ITEMSIZE[self.dtype]
        return size * (self.reads * n * m + n * k + k * m)

    @property
    def bytes_out(self) -> int:
        """Bytes of the results."""
        n, k, m, size = self.n, self.k, self.m, ITEMSIZE[self.dtype]
        counts = {
            "matmul_backward": ("x" in self.wrt) * n * k + ("w" in self.wrt) * k * m,
            "bias_backward": m,
            "sigmoid_backward": n * m,
            "sigmoid_bias_backward": n * m + m,
            "dense_sigmoid_backward": ("x" in self.wrt) * n * k
            + ("w" in self.wrt) * k * m
            + ("b" in self.wrt) * m,
            "sigmoid": n * m,
            "dense_sigmoid": n * m,
        }
        return size * counts[self.op]


def products(problem: Problem) -> tuple[tuple[str, int, int, int, bool], ...]:
    """List a call's matrix products: result, its rows and columns, contraction, may it be split."""
    n, k, m = problem.n, problem.k, problem.m
    if problem.op == "dense_sigmoid":
        return (("y", n, m, k, False),)
    if problem.op not in ("matmul_backward", "dense_sigmoid_backward"):
        return ()
    both = (("dx", n, k, m, False), ("dw", k, m, n, True))
    return tuple(one for one in both if one[0][1] in problem.wrt)


def cluster(tile: int, planes: int) -> tuple[int, int]:
    """Give CLUSTER_M and CLUSTER_N of kernels/gemm_wgmma.cuh: small products take narrow tiles."""
    if tile <= 64:
        return 1, 1
    return 2, 2 if planes == 1 and tile < 256 else 1


@dataclass(frozen=True)
class Gemm:
    """How one product of matrices is computed.

    Attributes
    ----------
    rows, columns, contraction : int
        Extents of the result and of the sum.
    tile : int
        BLOCK_N: the columns of results that a block of threads computes at once. BLOCK_M, their
        rows, is the same, but for "wgmma", where it is WARPGROUP_ROWS.
    splits : int
        Parts that the contraction is cut into; more than one need a workspace.
    split_length : int
        Terms a part, a multiple of GEMM_STEP, with "wgmma" of 64.
    algorithm : {"ffma", "mma", "wgmma", "dmma"}
    planes : int
        With "mma" and "wgmma", the 16-bit planes of each operand; else 0.
    """

    rows: int
    columns: int
    contraction: int
    tile: int
    splits: int
    split_length: int
    algorithm: str = "ffma"
    planes: int = 0

    @property
    def pairs(self) -> int:
        """Products of planes that make one of numbers."""
        return max(1, self.planes * (self.planes + 1) // 2)

    @property
    def tile_rows(self) -> int:
        """BLOCK_M."""
        return WARPGROUP_ROWS if self.algorithm == "wgmma" else self.tile

    @property
    def cluster(self) -> tuple[int, int]:
        """Tiles, down and across, of blocks that share what they read, and that are always all."""
        return cluster(self.tile, self.planes) if self.algorithm == "wgmma" else (1, 1)

    @property
    def blocks(self) -> int:
        """Tiles of one split, in whole clusters."""
        down, across = self.cluster
        clusters = math.ceil(self.rows / (down * self.tile_rows)) * math.ceil(
            self.columns / (across * self.tile)
        )
        return down * across * clusters

    @property
    def workspace_elements(self) -> int:
        """Accumulators that the splits leave for the second stage."""
        return self.splits * self.rows * self.columns if self.splits > 1 else 0


@dataclass(frozen=True)
class FusedLayer:
    """How dx, dw and db of a layer are computed in one launch.

    Attributes
    ----------
    n, k, m : int
        As those of the problem.
    tile : int
        Outputs that a block has room for, at least m.
    inputs : int
        Inputs of one block; a layer with more takes several, each of which reads dy and y.
    rows : int
        Of a block's step.
    splits : int
        Parts that the rows are cut into; more than one need a workspace.
    split_length : int
        Rows a part, a multiple of `rows`.
    algorithm : {"ffma", "mma"}
    planes : int
        With "mma" 1, of float32 3; else 0.
    """

    n: int
    k: int
    m: int
    tile: int
    inputs: int
    rows: int
    splits: int
    split_length: int
    algorithm: str
    planes: int

    @property
    def pairs(self) -> int:
        """Products of planes that make one of numbers: that of the first ones counts twice."""
        return 7 if self.planes == 3 else 1

    @property
    def blocks(self) -> int:
        """Blocks of threads of one split."""
        return max(1, math.ceil(self.k / self.inputs))

    @property
    def workspace_elements(self) -> int:
        """Accumulators that the splits leave for the second stage, for dw and db."""
        return self.splits * (self.k + 1) * self.m if self.splits > 1 else 0

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory of a block: w, x and dz of a step, and dx of 16-bit elements."""
        if self.algorithm == "mma":
            tiles = self.inputs * self.tile + self.rows * (self.tile + self.inputs)
            return 2 * self.planes * tiles + (self.planes == 1) * 4 * self.rows * (self.inputs + 8)
        return 4 * (self.inputs * self.tile + 2 * self.rows * (self.tile + 4))


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
    """

    lanes: tuple[int, int]
    column_blocks: int
    splits: int
    split_length: int
