"""The configurations of the kernels: all constants that the host and a kernel share.

A kernel family has a frozen dataclass. Its fields in capitals are passed to the kernels as macros
of the same name; kernels define no defaults and assert their requirements. A new tile is an entry
of a table below. A new algorithm is a dataclass, a table, a function in tiles.py, and its kernels
in `FAMILIES`.
"""

import functools
from dataclasses import dataclass, fields
from typing import ClassVar

WARP = 32  # threads
WORD_BYTES = 2  # of an element of a plane
MBARRIER_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The compile-time and launch parameters of a kernel family.

    Attributes
    ----------
    THREADS : int
        Threads per block.
    capability : tuple of int
        Minimum compute capability.
    suffix : str
        Suffix of the target architecture; "a" for instructions of that architecture alone.
    """

    capability: ClassVar[tuple[int, int]] = (7, 5)
    suffix: ClassVar[str] = ""

    THREADS: int = 256

    @property
    def block(self) -> tuple[int, ...]:
        """Block dimensions, unless they depend on shapes."""
        return (self.THREADS,)

    @property
    def shared_bytes(self) -> int:
        """Bytes of dynamic shared memory."""
        return 0

    @functools.cached_property
    def macros(self) -> tuple[str, ...]:
        """The macros, `NAME=value`."""
        names = [one.name for one in fields(self) if one.name.isupper()]
        found = [f"{name}={getattr(self, name)}" for name in names]
        return (*found, *[f"SHARED_BYTES={self.shared_bytes}"] * bool(self.shared_bytes))

    def lanes(self, packs: int) -> tuple[int, int]:
        """Return the threads of a block along a row of packs, a power of two, and along rows."""
        across = min(WARP, 1 << (max(1, packs) - 1).bit_length())
        return across, self.THREADS // across


# ---- passes over matrices


@dataclass(frozen=True, kw_only=True)
class Elementwise(Configuration):
    """Element-wise kernels."""


@dataclass(frozen=True, kw_only=True)
class RowSums(Configuration):
    """Column sums (column_sum.cuh); ROWS_IN_FLIGHT rows are loaded before the first is added."""

    ROWS_IN_FLIGHT: int


@dataclass(frozen=True, kw_only=True)
class PlaneSums(RowSums):
    """Column sums in the pass that writes planes of float32."""

    capability: ClassVar[tuple[int, int]] = (8, 0)

    ROWS_IN_FLIGHT: int = 4


@dataclass(frozen=True, kw_only=True)
class Reduction(Configuration):
    """The second stage of split sums: a block computes SUMS, each by THREADS_PER_SUM."""

    SUMS: int = 32
    THREADS_PER_SUM: int = 8

    @property
    def block(self) -> tuple[int, ...]:
        """Threads of a block."""
        return self.SUMS, self.THREADS_PER_SUM

    def grid(self, sums: int) -> tuple[int]:
        """Return the grid for a number of sums."""
        return (-(-sums // self.SUMS),)


@dataclass(frozen=True, kw_only=True)
class PlaneExponents(Reduction):
    """Maxima of rows and columns, and the exponents of their planes."""

    capability: ClassVar[tuple[int, int]] = (8, 0)

    ROWS_IN_FLIGHT: int = 4


@dataclass(frozen=True, kw_only=True)
class SplitPlanes(Configuration):
    """Planes of a matrix: a thread writes PACK elements, 16 bytes, of each plane."""

    capability: ClassVar[tuple[int, int]] = (8, 0)

    PACK: int = 16 // WORD_BYTES


ELEMENTWISE, REDUCTION = Elementwise(), Reduction()
PLANE_EXPONENTS, PLANE_SUMS, SPLIT_PLANES = PlaneExponents(), PlaneSums(), SplitPlanes()


def row_sums(itemsize: int) -> RowSums:
    """Return the configuration of column sums for an element size in bytes."""
    return RowSums(ROWS_IN_FLIGHT=2 if itemsize == WORD_BYTES else 4)


# ---- products


@dataclass(frozen=True, kw_only=True)
class GemmConfiguration(Configuration):
    """A matrix product: C (M, N) in tiles, a sum over K.

    Attributes
    ----------
    BLOCK_M, BLOCK_N : int
        Rows and columns of a block's tile of C.
    BLOCK_K : int
        Terms of the sum per stage.
    STAGES : int
        Stages of the pipeline in shared memory.
    TILE_GROUP : int
        Rows of tiles per group in the tile order.
    algorithm : str
        As in `gpugrad.planning.problem.Plan`.
    split_step : int
        The length of a split is a multiple of it.
    persistent : bool
        Whether the kernel is persistent; its grid then does not depend on the splits.
    """

    algorithm: ClassVar[str]
    split_step: ClassVar[int] = 16
    persistent: ClassVar[bool] = False

    BLOCK_M: int
    BLOCK_N: int
    BLOCK_K: int
    STAGES: int
    TILE_GROUP: int = 8

    @property
    def planes(self) -> int:
        """16-bit planes of each operand; 0 if there are none."""
        return 0

    @property
    def cluster(self) -> tuple[int, int]:
        """CTAs of a cluster, adjacent in M and in N."""
        return 1, 1

    def blocks(self, rows: int, columns: int) -> int:
        """Return the number of tiles of a result, in whole clusters."""
        m, n = self.cluster
        down, across = m * self.BLOCK_M, n * self.BLOCK_N
        return m * n * -(-rows // down) * -(-columns // across)

    def grid(self, tiles: int, splits: int, sm_count: int) -> tuple[int, ...]:
        """Return the grid: a block per tile and split."""
        return tiles, splits


@dataclass(frozen=True, kw_only=True)
class Ffma(GemmConfiguration):
    """gemm_ffma.cuh: FFMA instructions (SIMT); static shared memory."""

    algorithm: ClassVar[str] = "ffma"

    BLOCK_K: int = 16
    STAGES: int = 2
    TILE_GROUP: int = 1
    MIN_BLOCKS_PER_SM: int


@dataclass(frozen=True, kw_only=True)
class Mma(GemmConfiguration):
    """gemm_mma.cuh: 16-bit planes on tensor cores by mma.sync."""

    algorithm: ClassVar[str] = "mma"
    capability: ClassVar[tuple[int, int]] = (8, 0)

    PLANES: int
    WARPS_M: int = 2
    WARPS_N: int = 4
    MIN_BLOCKS_PER_SM: int

    @property
    def planes(self) -> int:
        """16-bit planes of each operand."""
        return self.PLANES

    @property
    def shared_bytes(self) -> int:
        """Bytes of the stages of both operands."""
        return self.STAGES * self.PLANES * (self.BLOCK_M + self.BLOCK_N) * self.BLOCK_K * WORD_BYTES


@dataclass(frozen=True, kw_only=True)
class Dmma(GemmConfiguration):
    """gemm_dmma.cuh: float64 tensor cores; PADDING elements per outer index of a stage."""

    algorithm: ClassVar[str] = "dmma"
    capability: ClassVar[tuple[int, int]] = (8, 0)

    BLOCK_K: int = 16
    STAGES: int = 3
    PADDING: int = 2
    WARPS_M: int = 2
    WARPS_N: int = 4
    MIN_BLOCKS_PER_SM: int

    @property
    def shared_bytes(self) -> int:
        """Bytes of the stages of both operands."""
        return self.STAGES * (self.BLOCK_M + self.BLOCK_N) * (self.BLOCK_K + self.PADDING) * 8


@dataclass(frozen=True, kw_only=True)
class Wgmma(GemmConfiguration):
    """gemm_wgmma.cuh: 16-bit planes on Hopper's tensor cores, by wgmma.

    Attributes
    ----------
    CLUSTER_M, CLUSTER_N : int
        CTAs of a cluster, adjacent in M and in N, that share what they read.
    ATOM_MN : int
        Extent in M or N of a swizzle atom of an MN-major operand.
    PROMOTION_INTERVAL : int
        Terms of one plane that tensor cores add before they are promoted.
    SINGLE_INTERVAL : int
        1 where registers have no room for promoted sums: K, or a split of it, is one interval.
    EPILOGUE_N : int
        Columns of an epilogue stage, in which a warp's sums pass through shared memory; rows have
        PADDING more.
    """

    algorithm: ClassVar[str] = "wgmma"
    capability: ClassVar[tuple[int, int]] = (9, 0)
    suffix: ClassVar[str] = "a"
    split_step: ClassVar[int] = 64
    persistent: ClassVar[bool] = True

    THREADS: int = 384
    BLOCK_M: int = 128
    PLANES: int
    CLUSTER_M: int
    CLUSTER_N: int
    ATOM_MN: int = 64
    PROMOTION_INTERVAL: int = 8192
    SINGLE_INTERVAL: int = 0
    EPILOGUE_N: int = 32
    PADDING: int = 8

    @property
    def planes(self) -> int:
        """16-bit planes of each operand."""
        return self.PLANES

    @property
    def cluster(self) -> tuple[int, int]:
        """CTAs of a cluster, adjacent in M and in N."""
        return self.CLUSTER_M, self.CLUSTER_N

    @property
    def shared_bytes(self) -> int:
        """Bytes of the stages, with two mbarriers each, and of the warps' epilogue stages."""
        stage = self.PLANES * (self.BLOCK_M + self.BLOCK_N) * self.BLOCK_K * WORD_BYTES
        epilogue = self.BLOCK_M * (self.EPILOGUE_N + self.PADDING) * 4
        return self.STAGES * (stage + 2 * MBARRIER_BYTES) + epilogue

    def grid(self, tiles: int, splits: int, sm_count: int) -> tuple[int, ...]:
        """Return the grid: at most a block per multiprocessor, in whole clusters.

        Clusters of two always find multiprocessors side by side. How many of four fit on a device
        at once is not known: there is a block for every tile.
        """
        blocks, cluster = tiles * splits, self.CLUSTER_M * self.CLUSTER_N
        return (blocks if cluster > 2 else min(blocks, sm_count // cluster * cluster),)

    def box(self, extent: int, slices: int, k_major: bool) -> tuple[tuple[int, int, int], int]:
        """Return the box of TMA for a tile of such an extent in M or N, and the swizzle.

        The box is (planes, rows, columns) of one of so many slices of the tile; an MN-major one is
        as wide as ATOM_MN. The swizzle is in bytes, of a row.
        """
        if k_major:
            return (1, extent // slices, self.BLOCK_K), self.BLOCK_K * WORD_BYTES
        return (1, self.BLOCK_K // slices, self.ATOM_MN), self.ATOM_MN * WORD_BYTES


# Each family's tiles, the smallest first. FFMA tiles of 128 columns, and of 64 columns
# of float64, need more than 128 registers per thread, as two accumulators of 128 columns do on
# tensor cores.
FFMA = {  # by dtype
    **dict.fromkeys(
        ("float32", "float16", "bfloat16"),
        (
            Ffma(BLOCK_M=64, BLOCK_N=64, MIN_BLOCKS_PER_SM=2),
            Ffma(BLOCK_M=128, BLOCK_N=128, MIN_BLOCKS_PER_SM=1),
        ),
    ),
    "float64": (Ffma(BLOCK_M=64, BLOCK_N=64, MIN_BLOCKS_PER_SM=1),),
}
MMA = {  # by planes; at most 96 KB of stages, which every device from 8.0 on has
    1: (
        Mma(PLANES=1, BLOCK_M=64, BLOCK_N=64, BLOCK_K=64, STAGES=3, MIN_BLOCKS_PER_SM=2),
        Mma(PLANES=1, BLOCK_M=128, BLOCK_N=128, BLOCK_K=64, STAGES=3, MIN_BLOCKS_PER_SM=1),
    ),
    2: (
        Mma(PLANES=2, BLOCK_M=64, BLOCK_N=64, BLOCK_K=32, STAGES=3, MIN_BLOCKS_PER_SM=2),
        Mma(PLANES=2, BLOCK_M=128, BLOCK_N=128, BLOCK_K=32, STAGES=3, MIN_BLOCKS_PER_SM=1),
    ),
    3: (
        Mma(PLANES=3, BLOCK_M=64, BLOCK_N=64, BLOCK_K=32, STAGES=3, MIN_BLOCKS_PER_SM=2),
        Mma(PLANES=3, BLOCK_M=128, BLOCK_N=128, BLOCK_K=16, STAGES=4, MIN_BLOCKS_PER_SM=1),
    ),
}
DMMA = (
    Dmma(BLOCK_M=64, BLOCK_N=64, MIN_BLOCKS_PER_SM=2),
    Dmma(BLOCK_M=128, BLOCK_N=128, MIN_BLOCKS_PER_SM=1),
)
# As many stages as fit into 227 KB, six at most. Small products take narrow tiles, alone. The L2
# cache could not bring operands of one plane as fast as they are multiplied by clusters of two,
# but for the widest tiles.
WGMMA = {  # by planes
    1: (
        Wgmma(PLANES=1, BLOCK_N=64, BLOCK_K=64, STAGES=6, CLUSTER_M=1, CLUSTER_N=1),
        Wgmma(PLANES=1, BLOCK_N=128, BLOCK_K=64, STAGES=6, CLUSTER_M=2, CLUSTER_N=2),
        Wgmma(PLANES=1, BLOCK_N=192, BLOCK_K=64, STAGES=5, CLUSTER_M=2, CLUSTER_N=2),
        Wgmma(
            PLANES=1, BLOCK_N=256, BLOCK_K=64, STAGES=4, CLUSTER_M=2, CLUSTER_N=1, SINGLE_INTERVAL=1
        ),
    ),
    2: (
        Wgmma(PLANES=2, BLOCK_N=64, BLOCK_K=32, STAGES=6, CLUSTER_M=1, CLUSTER_N=1),
        Wgmma(PLANES=2, BLOCK_N=128, BLOCK_K=32, STAGES=6, CLUSTER_M=2, CLUSTER_N=1),
        Wgmma(PLANES=2, BLOCK_N=192, BLOCK_K=32, STAGES=5, CLUSTER_M=2, CLUSTER_N=1),
    ),
    3: (
        Wgmma(PLANES=3, BLOCK_N=64, BLOCK_K=32, STAGES=5, CLUSTER_M=1, CLUSTER_N=1),
        Wgmma(PLANES=3, BLOCK_N=128, BLOCK_K=32, STAGES=4, CLUSTER_M=2, CLUSTER_N=1),
        Wgmma(PLANES=3, BLOCK_N=192, BLOCK_K=32, STAGES=3, CLUSTER_M=2, CLUSTER_N=1),
    ),
}


def tiles(algorithm: str, dtype: str, planes: int) -> tuple[GemmConfiguration, ...]:
    """Return the tiles of an algorithm, the smallest first."""
    if algorithm in ("mma", "wgmma"):
        return MMA[planes] if algorithm == "mma" else WGMMA[planes]
    return FFMA[dtype] if algorithm == "ffma" else DMMA


# ---- the fused backward kernels of a layer


@dataclass(frozen=True, kw_only=True)
class FusedConfiguration(Configuration):
    """The fused backward kernels of a layer.

    Attributes
    ----------
    OUTPUTS : int
        Maximum number of outputs of the layer.
    INPUTS : int
        Inputs of the layer per block; each block of a wider layer reads dy and y.
    ROWS : int
        Rows per step.
    PADDING : int
        Padding elements per row in shared memory.
    algorithm : str
        As in `gpugrad.planning.problem.Plan`.
    max_blocks : int
        Maximum number of blocks after the batch is split.
    """

    algorithm: ClassVar[str]

    OUTPUTS: int
    INPUTS: int
    ROWS: int
    PADDING: int
    MIN_BLOCKS_PER_SM: int
    max_blocks: int

    @property
    def planes(self) -> int:
        """16-bit planes of each operand; 0 if there are none."""
        return 0


@dataclass(frozen=True, kw_only=True)
class FusedFfma(FusedConfiguration):
    """dense_sigmoid_backward_fused_ffma.cu: float32 by FFMA.

    DW_UNROLL is the number of rows of dw multiplied at once, with fewer on sm_120, where more
    spill; DX_UNROLL the number of quads of outputs of dx.
    """

    algorithm: ClassVar[str] = "ffma"

    PADDING: int = 4
    DW_UNROLL: int = 4
    DW_UNROLL_SM120: int = 4
    DX_UNROLL: int = 2

    @property
    def shared_bytes(self) -> int:
        """Bytes of w, and of x and dz of a step."""
        return 4 * (self.INPUTS * self.OUTPUTS + 2 * self.ROWS * (self.OUTPUTS + self.PADDING))


@dataclass(frozen=True, kw_only=True)
class FusedMma(FusedConfiguration):
    """dense_sigmoid_backward_fused_mma.cu: tensor cores by mma.sync.

    From logits, steps have ROWS_FROM_LOGITS rows: exponentials take registers.
    """

    algorithm: ClassVar[str] = "mma"
    capability: ClassVar[tuple[int, int]] = (8, 0)

    PLANES: int
    ROWS_FROM_LOGITS: int
    WARPS_M: int = 2
    WARPS_N: int = 4
    PADDING: int = 8

    @property
    def planes(self) -> int:
        """16-bit planes of each operand."""
        return self.PLANES

    @property
    def shared_bytes(self) -> int:
        """Bytes of w, and of x, dz and, of 16-bit elements, dx of a step."""
        tiles = self.INPUTS * self.OUTPUTS + self.ROWS * (self.OUTPUTS + self.INPUTS)
        dx = 4 * self.ROWS * (self.INPUTS + self.PADDING)
        return WORD_BYTES * self.PLANES * tiles + (self.PLANES == 1) * dx


_OF_16_BITS = (
    FusedMma(
        PLANES=1,
        OUTPUTS=64,
        INPUTS=64,
        ROWS=64,
        ROWS_FROM_LOGITS=32,
        MIN_BLOCKS_PER_SM=2,
        max_blocks=512,
    ),
    FusedMma(
        PLANES=1,
        OUTPUTS=128,
        INPUTS=128,
        ROWS=64,
        ROWS_FROM_LOGITS=64,
        MIN_BLOCKS_PER_SM=1,
        max_blocks=256,
    ),
    FusedMma(
        PLANES=1,
        OUTPUTS=256,
        INPUTS=64,
        ROWS=32,
        ROWS_FROM_LOGITS=32,
        MIN_BLOCKS_PER_SM=1,
        max_blocks=256,
    ),
)
FUSED: dict[tuple[str, str], tuple[FusedConfiguration, ...]] = {  # by dtype and algorithm
    ("float32", "ffma"): (
        FusedFfma(
            OUTPUTS=64,
            INPUTS=64,
            ROWS=64,
            DW_UNROLL_SM120=1,
            MIN_BLOCKS_PER_SM=2,
            max_blocks=1024,
        ),
        FusedFfma(OUTPUTS=128, INPUTS=128, ROWS=32, MIN_BLOCKS_PER_SM=1, max_blocks=512),
    ),
    ("float32", "mma"): (
        FusedMma(
            PLANES=3,
            OUTPUTS=64,
            INPUTS=64,
            ROWS=32,
            ROWS_FROM_LOGITS=32,
            MIN_BLOCKS_PER_SM=2,
            max_blocks=512,
        ),
        FusedMma(
            PLANES=3,
            OUTPUTS=128,
            INPUTS=128,
            ROWS=32,
            ROWS_FROM_LOGITS=32,
            MIN_BLOCKS_PER_SM=1,
            max_blocks=256,
        ),
    ),
    ("float16", "mma"): _OF_16_BITS,
    ("bfloat16", "mma"): _OF_16_BITS,
}


FAMILIES: dict[str, type[Configuration]] = {  # by the stems of the kernel files
    "sigmoid": Elementwise,
    "sigmoid_backward": Elementwise,
    "bias_backward": RowSums,
    "sigmoid_bias_backward": RowSums,
    "sigmoid_bias_planes": PlaneSums,
    "reduce_splits": Reduction,
    "plane_exponents": PlaneExponents,
    "split_planes": SplitPlanes,
    "matmul_backward_ffma": Ffma,
    "dense_sigmoid_ffma": Ffma,
    "dense_sigmoid_backward_dx_ffma": Ffma,
    "dense_sigmoid_backward_dw_ffma": Ffma,
    "matmul_backward_mma": Mma,
    "dense_sigmoid_mma": Mma,
    "matmul_backward_dmma": Dmma,
    "dense_sigmoid_dmma": Dmma,
    "matmul_backward_wgmma": Wgmma,
    "dense_sigmoid_wgmma": Wgmma,
    "dense_sigmoid_backward_fused_ffma": FusedFfma,
    "dense_sigmoid_backward_fused_mma": FusedMma,
}
