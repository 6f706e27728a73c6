"""What a call will do: the algorithm, its tiles and splits, and the time that it should take.

Everything here is arithmetic on shapes and device facts. Nothing imports CuPy, so that every
decision can be tested on any machine.

Tiles and splits depend on shapes and dtype alone, never on the device: the same call adds in the
same order everywhere.
"""

import math
from dataclasses import dataclass

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ACCUMULATOR_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 4, "bfloat16": 4}

THREADS = 256  # of every block of every kernel
GEMM_STEP = 16  # BLOCK_K, the part of the contraction that is in shared memory at a time
LARGE_TILE, SMALL_TILE = 128, 64  # BLOCK_M = BLOCK_N
LARGE_TILE_FROM = 96  # large tiles from this many of them: fewer would leave most of a GPU idle
LARGE_TILE_PADDING = 1.2  # and not where they compute so much more than small ones
SPLIT_BLOCKS = 512  # a contraction over the batch is split until about so many blocks work
SPLIT_ROWS = 512  # and no further than this many rows a split
COLUMN_SUM_BLOCKS = 1024
VECTOR_BYTES = 16  # one access of one thread
ROWS_A_LANE = 8  # rows in flight a thread


@dataclass(frozen=True)
class DeviceFacts:
    """What the choice of an algorithm may know about a GPU.

    Attributes
    ----------
    name : str
    compute_capability : tuple of int
        (major, minor).
    sm_count : int
    clock_hz : float
    bandwidth : float
        Of the device's memory, bytes a second, as its properties state it.
    memory : int
        Bytes in all.
    """

    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    clock_hz: float
    bandwidth: float
    memory: int


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


@dataclass(frozen=True)
class Gemm:
    """How one product of matrices is computed.

    Attributes
    ----------
    rows, columns, contraction : int
        Extents of the result and of the sum.
    tile : int
        BLOCK_M = BLOCK_N, the side of the square of results of one block of threads.
    splits : int
        Parts that the contraction is cut into; more than one need a workspace.
    split_length : int
        Terms a part, a multiple of BLOCK_K.
    """

    rows: int
    columns: int
    contraction: int
    tile: int
    splits: int
    split_length: int

    @property
    def blocks(self) -> int:
        """Blocks of threads of one split."""
        return math.ceil(self.rows / self.tile) * math.ceil(self.columns / self.tile)

    @property
    def workspace_elements(self) -> int:
        """Accumulators that the splits leave for the second stage."""
        return self.splits * self.rows * self.columns if self.splits > 1 else 0


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


@dataclass(frozen=True)
class Plan:
    """What a call will do.

    Attributes
    ----------
    op : str
    device : {"cpu", "gpu"}
    algorithm : {"numpy", "elementwise", "column-sum", "ffma"}
    predicted_seconds : float
        From a simple model of rates, transfers included; not a measurement.
    reason : str
        Why this device and algorithm, in words.
    steps : tuple
        Name and Gemm or ColumnSum of each part of the work on a GPU.
    """

    op: str
    device: str
    algorithm: str
    predicted_seconds: float
    reason: str
    steps: tuple[tuple[str, Gemm | ColumnSum], ...] = ()

    def gemm(self, name: str) -> Gemm:
        """Give the step that computes a product."""
        step = dict(self.steps)[name]
        assert isinstance(step, Gemm)
        return step

    def column_sum(self, name: str) -> ColumnSum:
        """Give the step that sums over rows."""
        step = dict(self.steps)[name]
        assert isinstance(step, ColumnSum)
        return step


def gemm(rows: int, columns: int, contraction: int, dtype: str, *, split: bool) -> Gemm:
    """Choose tile and split of a product by its shape alone.

    Parameters
    ----------
    rows, columns, contraction : int
    dtype : str
    split : bool
        Whether the contraction may be split. Not where each row of the result must be
        independent of how many rows there are.
    """

    def tiles(side: int) -> int:
        return math.ceil(rows / side) * math.ceil(columns / side)

    padded = tiles(LARGE_TILE) * LARGE_TILE**2 / max(1, tiles(SMALL_TILE) * SMALL_TILE**2)
    enough = tiles(LARGE_TILE) >= LARGE_TILE_FROM and padded <= LARGE_TILE_PADDING
    tile = LARGE_TILE if enough and dtype != "float64" else SMALL_TILE
    splits = 1
    if split and tiles(tile):
        splits = min(math.ceil(contraction / SPLIT_ROWS), SPLIT_BLOCKS // tiles(tile))
    length = math.ceil(math.ceil(contraction / max(1, splits)) / GEMM_STEP) * GEMM_STEP
    length = max(length, GEMM_STEP)
    return Gemm(rows, columns, contraction, tile, max(1, math.ceil(contraction / length)), length)


def column_sum(n: int, m: int, dtype: str) -> ColumnSum:
    """Choose the block and the split of a sum over rows by its shape alone."""
    vector = VECTOR_BYTES // ITEMSIZE[dtype]
    across = max(1, math.ceil(m / vector))
    lanes_x = min(32, 1 << (across - 1).bit_length())
    lanes_y = THREADS // lanes_x
    column_blocks = math.ceil(across / lanes_x)
    splits = min(
        math.ceil(n / (lanes_y * ROWS_A_LANE)), math.ceil(COLUMN_SUM_BLOCKS / column_blocks)
    )
    length = max(1, math.ceil(n / max(1, splits)))
    return ColumnSum((lanes_x, lanes_y), column_blocks, max(1, math.ceil(n / length)), length)


def choose(problem: Problem, device: str, precision: str, reason: str, seconds: float) -> Plan:
    """Plan a call on a device that has been decided.

    Parameters
    ----------
    problem : Problem
    device : {"cpu", "gpu"}
    precision : str
        Every class is computed with full IEEE arithmetic of the accumulator's dtype as long as
        "ffma" is the only algorithm: it satisfies them all.
    reason : str
        Why this device.
    seconds : float
        The predicted time.
    """
    if device == "cpu":
        return Plan(problem.op, "cpu", "numpy", seconds, reason)
    n, k, m, dtype, op = problem.n, problem.k, problem.m, problem.dtype, problem.op
    steps: dict[str, Gemm | ColumnSum] = {}
    algorithm = "elementwise"
    if op in ("bias_backward", "sigmoid_bias_backward") or "b" in problem.wrt:
        steps["db"] = column_sum(n, m, dtype)
        algorithm = "column-sum"
    if op == "dense_sigmoid":
        steps["y"] = gemm(n, m, k, dtype, split=False)
        algorithm = "ffma"
    if op in ("matmul_backward", "dense_sigmoid_backward"):
        if "x" in problem.wrt:
            steps["dx"] = gemm(n, k, m, dtype, split=False)
        if "w" in problem.wrt:
            steps["dw"] = gemm(k, m, n, dtype, split=True)
        if steps.keys() & {"dx", "dw"}:
            algorithm = "ffma"
    if algorithm == "ffma" and dtype == "float32":
        reason += f"; precision {precision!r} is met by IEEE multiply-adds"
    return Plan(op, "gpu", algorithm, seconds, reason, tuple(steps.items()))


# ---- the default cost model: round figures for an unmeasured machine

CPU_FLOPS_A_CORE = 3e10  # float32 multiply-adds through a BLAS
CPU_BANDWIDTH = 1e10
CPU_CALL = 1e-5
TRANSFER_BANDWIDTH = 1.2e10  # pageable host memory over PCIe
TRANSFER_CALL = 2e-5
GPU_CALL = 1e-5  # one launch from Python
GPU_SHARE = 0.6  # of the peak rates that properties promise


def cpu_seconds(problem: Problem, cores: int) -> float:
    """Predict the time of a call on the CPU."""
    rate = CPU_FLOPS_A_CORE * cores * (0.5 if problem.dtype == "float64" else 1.0)
    traffic = 2 * (problem.bytes_in + problem.bytes_out)
    return CPU_CALL + problem.flops / rate + traffic / CPU_BANDWIDTH


def gpu_seconds(problem: Problem, facts: DeviceFacts, *, from_host: bool) -> float:
    """Predict the time of a call on a GPU, with the transfers of arrays that are on the host."""
    fmas_a_clock = 64 if problem.dtype == "float64" else 128
    rate = GPU_SHARE * facts.sm_count * fmas_a_clock * 2 * facts.clock_hz
    traffic = problem.bytes_in + problem.bytes_out
    seconds = 4 * GPU_CALL + problem.flops / rate + traffic / (GPU_SHARE * facts.bandwidth)
    if from_host:
        seconds += 4 * TRANSFER_CALL + traffic / TRANSFER_BANDWIDTH
    return seconds
