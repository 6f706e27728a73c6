"""What a call will do: the algorithm, its tiles and splits, and the time that it should take.

Everything here is arithmetic on shapes and device facts. Nothing imports CuPy, so that every
decision can be tested on any machine.

Tiles and splits depend on shapes, dtype and algorithm alone. The algorithm also depends on the
device: which ones it has, and which should be the fastest on it for such a layer. It does not
depend on the number of rows, so that a row's results do not either.
"""

import functools
import math
from dataclasses import dataclass, replace

from gpugrad._operations import OPERATIONS

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ACCUMULATOR_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 4, "bfloat16": 4}

THREADS = 256  # of every block of every kernel
GEMM_STEP = 16  # a split's length is a multiple of it
LARGE_TILE, SMALL_TILE = 128, 64  # BLOCK_M = BLOCK_N
LARGE_TILE_FROM = 96  # large tiles from this many of them: fewer would leave most of a GPU idle
LARGE_TILE_PADDING = 1.2  # and not where they compute so much more than small ones
SPLIT_BLOCKS = 512  # a contraction over the batch is split until about so many blocks work
SPLIT_ROWS = 512  # and no further than this many rows a split
COLUMN_SUM_BLOCKS = 1024
VECTOR_BYTES = 16  # one access of one thread
EXACT_PLANES = 3  # of bfloat16, which hold every float32
EXACT_TERMS = 192  # of a sum from which on they lose no more than multiply-adds; see numerics.md
TYPICAL_ROWS = 4096  # of a batch, for the choice of an algorithm
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
        Terms a part, a multiple of GEMM_STEP.
    algorithm : {"ffma", "mma", "dmma"}
    planes : int
        With "mma", the 16-bit planes of each operand; else 0.
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
    algorithm : {"numpy", "elementwise", "column-sum", "ffma", "mma", "dmma"}
        On a GPU, matrix products are computed by IEEE multiply-adds ("ffma"), on tensor cores from
        16-bit planes ("mma"), or on float64 tensor cores ("dmma"). Each product's Gemm has its own.
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

    @property
    def planes(self) -> dict[str, int]:
        """Planes of the operands of each product, by its result; 0 where there are none."""
        return {name: step.planes for name, step in self.steps if isinstance(step, Gemm)}


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
        As in `Gemm`. Splits of a sum by tensor cores are as those by multiply-adds.
    """

    def tiles(side: int) -> int:
        return math.ceil(rows / side) * math.ceil(columns / side)

    padded = tiles(LARGE_TILE) * LARGE_TILE**2 / max(1, tiles(SMALL_TILE) * SMALL_TILE**2)
    enough = tiles(LARGE_TILE) >= LARGE_TILE_FROM and padded <= LARGE_TILE_PADDING
    fits = not (algorithm == "ffma" and dtype == "float64")  # into a thread's registers
    tile = LARGE_TILE if enough and fits else SMALL_TILE
    splits = 1
    if split and tiles(tile):
        splits = min(math.ceil(contraction / SPLIT_ROWS), SPLIT_BLOCKS // tiles(tile))
    length = math.ceil(math.ceil(contraction / max(1, splits)) / GEMM_STEP) * GEMM_STEP
    length = max(length, GEMM_STEP)
    parts = max(1, math.ceil(contraction / length))
    return Gemm(rows, columns, contraction, tile, parts, length, algorithm, planes)


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


@dataclass(frozen=True)
class Choice:
    """An algorithm with its planes, its predicted time on the GPU alone, and why it was taken."""

    algorithm: str
    planes: int
    seconds: float
    reason: str


def choose(
    problem: Problem,
    device: str,
    precision: str,
    reason: str,
    seconds: float,
    facts: DeviceFacts | None = None,
) -> Plan:
    """Plan a call on a device that has been decided.

    Parameters
    ----------
    problem : Problem
    device : {"cpu", "gpu"}
    precision : {"highest", "high", "medium", "ieee"}
    reason : str
        Why this device.
    seconds : float
        The predicted time.
    facts : DeviceFacts, optional
        Of the GPU. Without them its matrix products are IEEE multiply-adds.
    """
    if device == "cpu":
        return Plan(problem.op, "cpu", "numpy", seconds, reason)
    op = problem.op
    if not products(problem):
        steps = _steps(problem, "ffma", 0)
        return Plan(op, "gpu", "column-sum" if steps else "elementwise", seconds, reason, steps)
    choice = taken(problem, precision, facts)
    steps = _steps(problem, choice.algorithm, choice.planes)
    return Plan(op, "gpu", choice.algorithm, seconds, f"{reason}; {choice.reason}", steps)


def taken(problem: Problem, precision: str, facts: DeviceFacts | None) -> Choice:
    """Choose how to compute a call's products: as for any number of rows, unless all are short."""
    choice = fastest(of_any_rows(problem), precision, facts)
    if all(_short(one[3], choice.planes) for one in products(problem)):
        words = f"{_words('ffma', 0, problem.dtype)}, as sums have few terms"
        return Choice("ffma", 0, choice.seconds, words)
    return choice


def _short(contraction: int, planes: int) -> bool:
    """Say whether so many planes would lose more than multiply-adds, because terms are few."""
    return planes == EXACT_PLANES and contraction < EXACT_TERMS


def of_any_rows(problem: Problem) -> Problem:
    """Give the problem that stands for the layer: its rows' results must not depend on others."""
    return replace(problem, n=TYPICAL_ROWS, wrt=OPERATIONS[problem.op].wrt)


def products(problem: Problem) -> tuple[tuple[str, int, int, int, bool], ...]:
    """List a call's matrix products: result, its rows and columns, contraction, may it be split."""
    n, k, m = problem.n, problem.k, problem.m
    if problem.op == "dense_sigmoid":
        return (("y", n, m, k, False),)
    if problem.op not in ("matmul_backward", "dense_sigmoid_backward"):
        return ()
    both = (("dx", n, k, m, False), ("dw", k, m, n, True))
    return tuple(one for one in both if one[0][1] in problem.wrt)


def candidates(
    problem: Problem, precision: str, capability: tuple[int, int]
) -> tuple[tuple[str, int], ...]:
    """List the ways to compute a call's products on a device that are accurate enough.

    Parameters
    ----------
    problem : Problem
    precision : {"highest", "high", "medium", "ieee"}
    capability : tuple of int
        (major, minor).

    Returns
    -------
    tuple
        Of (algorithm, planes). The first is ("ffma", 0), which every device has. Tensor cores cut
        off where they add: with three planes sums of EXACT_TERMS terms or more are as accurate as
        by IEEE multiply-adds nevertheless; few roundings are hard to beat.
    """
    rates, found = rates_of(capability), [("ffma", 0)]
    contractions = [one[3] for one in products(problem)]
    if precision == "ieee" or not contractions:
        pass
    elif problem.dtype == "float64":
        found += [("dmma", 0)] * (rates.tensor_64 > 0)
    elif rates.tensor_16 and problem.dtype != "float32":
        found.append(("mma", 1))
    elif rates.tensor_16:
        least = {"highest": EXACT_PLANES, "high": 2, "medium": 1}[precision]
        most = EXACT_PLANES if min(contractions) >= EXACT_TERMS else 2
        found += [("mma", planes) for planes in range(least, most + 1)]
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def fastest(problem: Problem, precision: str, facts: DeviceFacts | None) -> Choice:
    """Choose how to compute a call's products in the least time on a GPU, as predicted."""
    if facts is None:
        return Choice("ffma", 0, 0.0, _words("ffma", 0, problem.dtype))
    times = {
        one: kernel_seconds(problem, *one, facts)
        for one in candidates(problem, precision, facts.compute_capability)
    }
    best = min(times, key=lambda one: times[one])
    words = _words(*best, problem.dtype)
    if best[0] != "ffma":
        words += f", predicted {times[best]:.2g} s for {problem.n} rows"
        words += f" against {times['ffma', 0]:.2g} s by multiply-adds"
    return Choice(*best, times[best], words)


def _words(algorithm: str, planes: int, dtype: str) -> str:
    if algorithm == "dmma":
        return "products on float64 tensor cores"
    if algorithm == "ffma":
        return "products by IEEE multiply-adds"
    if dtype != "float32":
        return f"products on {dtype} tensor cores"
    kind = "bfloat16" if planes == 3 else "scaled float16"
    return f"products on tensor cores from {planes} {kind} plane{'s' * (planes > 1)}"


def _steps(
    problem: Problem, algorithm: str, planes: int
) -> tuple[tuple[str, Gemm | ColumnSum], ...]:
    """Plan each part of the work that has tiles or splits."""
    steps: list[tuple[str, Gemm | ColumnSum]] = []
    with_db = problem.op in ("bias_backward", "sigmoid_bias_backward") or "b" in problem.wrt
    # On tensor cores the pass that computes dz sums its columns, wanted or not.
    with_dz = problem.op == "dense_sigmoid_backward" and algorithm != "ffma" and problem.wrt
    if with_db or with_dz:
        steps.append(("db", column_sum(problem.n, problem.m, problem.dtype)))
    for name, rows, columns, contraction, split in products(problem):
        short = _short(contraction, planes)
        plan = gemm(
            rows,
            columns,
            contraction,
            problem.dtype,
            split=split,
            algorithm="ffma" if short else algorithm,
            planes=0 if short else planes,
        )
        steps.append((name, plan))
    return tuple(steps)


# ---- the default cost model: round figures for an unmeasured machine

CPU_FLOPS_A_CORE = 3e10  # float32 multiply-adds through a BLAS
CPU_BANDWIDTH = 1e10
CPU_CALL = 1e-5
TRANSFER_BANDWIDTH = 1.2e10  # pageable host memory over PCIe
TRANSFER_CALL = 2e-5
GPU_CALL = 1e-5  # one launch from Python
GPU_LAUNCH = 3e-6  # the same, as the GPU sees it
GPU_SHARE = 0.6  # of the peak rates that properties promise


@dataclass(frozen=True)
class Rates:
    """Multiply-adds a clock and multiprocessor, as the makers' data sheets have them.

    Attributes
    ----------
    float32, float64 : float
        In the ordinary units.
    tensor_16 : float
        On tensor cores, of 16-bit operands into float32, by mma.sync; 0 where these kernels need
        what the device has not.
    tensor_64 : float
        On float64 tensor cores; 0 where there are none, or where they are no faster.
    """

    float32: float
    float64: float
    tensor_16: float = 0
    tensor_64: float = 0


RATES = {
    (7, 5): Rates(64, 2),
    (8, 0): Rates(64, 32, 1024, 64),
    (8, 6): Rates(128, 2, 256),  # of the GeForce models; others of the generation have 512
    (8, 9): Rates(128, 2, 256),
    (9, 0): Rates(128, 64, 1290, 128),  # mma.sync reaches about 63 % of the 2048 that wgmma has
    (10, 0): Rates(128, 64, 1024, 64),
    (10, 3): Rates(128, 2, 1024),
    (12, 0): Rates(128, 2, 256),
}


def rates_of(capability: tuple[int, int]) -> Rates:
    """Give the rates of a compute capability, of the next lower one where it is not known."""
    return RATES[max((one for one in RATES if one <= capability), default=min(RATES))]


def cpu_seconds(problem: Problem, cores: int) -> float:
    """Predict the time of a call on the CPU."""
    rate = CPU_FLOPS_A_CORE * cores * (0.5 if problem.dtype == "float64" else 1.0)
    traffic = 2 * (problem.bytes_in + problem.bytes_out)
    return CPU_CALL + problem.flops / rate + traffic / CPU_BANDWIDTH


def gpu_seconds(problem: Problem, precision: str, facts: DeviceFacts, *, from_host: bool) -> float:
    """Predict the time of a call on a GPU, with the transfers of arrays that are on the host."""
    choice = taken(problem, precision, facts)
    traffic = problem.bytes_in + problem.bytes_out
    seconds = 4 * GPU_CALL + kernel_seconds(problem, choice.algorithm, choice.planes, facts)
    if from_host:
        seconds += 4 * TRANSFER_CALL + traffic / TRANSFER_BANDWIDTH
    return seconds


def kernel_seconds(problem: Problem, algorithm: str, planes: int, facts: DeviceFacts) -> float:
    """Predict the time of a call's kernels: each is bounded by its bytes or its multiply-adds."""
    bandwidth = GPU_SHARE * facts.bandwidth
    before = passes(problem, algorithm, planes)
    seconds = sum(GPU_LAUNCH + traffic / bandwidth for traffic in before)
    rates = rates_of(facts.compute_capability)
    size = ITEMSIZE[problem.dtype]
    ordinary = rates.float64 if problem.dtype == "float64" else rates.float32
    for name, plan in _steps(problem, algorithm, planes):
        if not isinstance(plan, Gemm):
            continue
        rate, pairs, element, reads = ordinary, 1, size, problem.reads
        if plan.algorithm == "dmma":
            rate, reads = rates.tensor_64, 1
        elif plan.algorithm == "mma":
            rate, reads, element = rates.tensor_16, 1, 2 * plan.planes
            pairs = plan.planes * (plan.planes + 1) // 2
        waves = math.ceil(plan.blocks * plan.splits / facts.sm_count)
        work = waves * plan.tile**2 * plan.split_length * pairs
        dz = (plan.columns if name == "dw" else plan.rows) * plan.contraction
        operands = (plan.rows + plan.columns) * plan.contraction + max(0, reads - 1) * dz
        traffic = element * operands + size * plan.rows * plan.columns
        traffic += 2 * ACCUMULATOR_ITEMSIZE[problem.dtype] * plan.workspace_elements
        seconds += GPU_LAUNCH * (1 + (plan.splits > 1))
        seconds += max(work / (GPU_SHARE * rate * facts.clock_hz), traffic / bandwidth)
    return seconds


def passes(problem: Problem, algorithm: str, planes: int) -> list[float]:
    """List the bytes of each pass beside the products: dz, its sums, planes and their exponents."""
    n, k, m, size = problem.n, problem.k, problem.m, ITEMSIZE[problem.dtype]
    dy = float(size * problem.reads * n * m)
    if not products(problem):
        return [float(problem.bytes_in + problem.bytes_out)]
    dense = problem.op == "dense_sigmoid_backward"
    if algorithm == "ffma":
        return [dy] if dense and "b" in problem.wrt else []
    if algorithm == "dmma" or problem.dtype != "float32":
        return [dy + size * n * m] if dense else []
    scaled = planes < EXACT_PLANES
    results = {one[0] for one in products(problem) if not _short(one[3], planes)}
    matrices = [(float(size * n * k), n * k, 1)] * bool(results & {"dw", "y"})
    matrices += [(float(size * k * m), k * m, 1)] * bool(results & {"dx", "y"})
    if problem.op != "dense_sigmoid":
        matrices.append((dy, n * m, 2 if scaled and results >= {"dx", "dw"} else 1))
    found: list[float] = []
    for read, elements, versions in matrices:
        found += [read, 0.0] * scaled  # exponents, in two stages
        found.append(read + 2 * planes * versions * elements)
    return found
