"""Plans are pure functions of shapes: valid everywhere, the same on every device, and explained."""

import copy
import dataclasses
import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from gpugrad.operations import OPERATIONS
from gpugrad.planning.choice import (
    EXACT_PLANES,
    EXACT_TERMS,
    MANY_ROWS,
    RECOVERED_TERMS,
    candidates,
    choose,
    fastest,
    fused_layer,
    fused_path,
    gpu_seconds,
    kernel_seconds,
    row_independent,
)
from gpugrad.planning.configurations import FFMA, FUSED, tiles
from gpugrad.planning.gpu_costs import RATES, DeviceFacts, rates_of
from gpugrad.planning.problem import ITEMSIZE, FusedLayer, Gemm, Problem
from gpugrad.planning.tiles import (
    COLUMN_SUM_BLOCKS,
    SPLIT_BLOCKS,
    VECTOR_BYTES,
    column_sum,
    gemm,
)
from tests.support.cases import DTYPES, LARGE_TILES

EXTENTS = (0, 1, 2, 15, 16, 17, 63, 64, 65, 128, 129, 1000, 4099, 12161, 10**6, 2**31 + 5)
SMALL, LARGE = FFMA["float32"]
LARGEST_WORKSPACE = SPLIT_BLOCKS * LARGE.BLOCK_M * LARGE.BLOCK_N
GRID_X, GRID_Y = 2**31 - 1, 65535

SLOW = DeviceFacts("slow", (7, 5), 14, 1e9, 1e11, 4 << 30)
FAST = DeviceFacts("fast", (9, 0), 132, 2e9, 4.8e12, 140 << 30)
DEVICES = (
    DeviceFacts("T4", (7, 5), 40, 1.59e9, 3.2e11, 16 << 30),
    DeviceFacts("A100", (8, 0), 108, 1.41e9, 1.55e12, 40 << 30),
    DeviceFacts("RTX 3090", (8, 6), 82, 1.7e9, 9.4e11, 24 << 30),
    DeviceFacts("RTX 4090", (8, 9), 128, 2.52e9, 1.0e12, 24 << 30),
    DeviceFacts("H200", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30),
    DeviceFacts("B200", (10, 0), 148, 1.85e9, 8e12, 180 << 30),
    DeviceFacts("RTX 5090", (12, 0), 170, 2.4e9, 1.8e12, 32 << 30),
)
SHARED_A_BLOCK = {  # units of 1024 bytes that a launch may ask for, from the CUDA programming guide
    (7, 5): 64,
    (8, 0): 163,
    (8, 6): 99,
    (8, 9): 99,
    (9, 0): 227,
    (10, 0): 227,
    (12, 0): 99,
}
PRECISIONS = ("highest", "high", "medium", "ieee")
PRODUCTS = ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("dtype", "algorithm", "planes"),
    [*((dtype, "ffma", 0) for dtype in DTYPES), ("float32", "mma", 3), ("float64", "dmma", 0)],
)
def test_products(dtype, algorithm, planes, split):
    """Splits are whole steps that cover the contraction, none of them empty."""
    for rows, columns, contraction in itertools.product(EXTENTS, repeat=3):
        if rows * columns > 2**42:
            continue  # no memory holds it
        by = {"algorithm": algorithm, "planes": planes}
        plan = gemm(rows, columns, contraction, dtype, split=split, **by)
        assert (plan.algorithm, plan.planes) == (algorithm, planes)
        assert (plan.rows, plan.columns, plan.contraction) == (rows, columns, contraction)
        assert plan.configuration in tiles(algorithm, dtype, planes)
        assert plan.split_length % plan.configuration.split_step == 0
        assert plan.split_length > 0
        assert plan.splits * plan.split_length >= contraction
        assert (plan.splits - 1) * plan.split_length < max(1, contraction)
        assert plan.splits == 1 or split
        assert plan.workspace_elements <= LARGEST_WORKSPACE
        assert plan.blocks <= GRID_X
        assert 1 <= plan.splits <= GRID_Y


def test_large_tiles_need_a_large_result_that_fills_them():
    def tile(rows, columns, dtype="float32", algorithm="ffma"):
        plan = gemm(rows, columns, 64, dtype, split=False, algorithm=algorithm)
        return plan.configuration.BLOCK_N

    assert tile(8192, 4096) == 128
    assert tile(8192, 4096, "float64") == 64
    assert tile(8192, 4096, "float64", "dmma") == 128
    assert tile(256, 512) == 64  # eight large tiles leave a GPU idle
    assert tile(10**6, 64) == 64  # half of every large tile would be empty
    assert tile(10**6, 128) == 128


@pytest.mark.usefixtures("large_tiles")
def test_the_tests_of_large_tiles_use_them():
    n, k, m = math.prod(LARGE_TILES.lead), LARGE_TILES.k, LARGE_TILES.m
    for rows, columns, contraction in ((n, k, m), (k, m, n), (n, m, k)):
        assert gemm(rows, columns, contraction, "float32", split=True).configuration == LARGE


def test_tiles_cover_the_result():
    for rows, columns in itertools.product((1, 63, 64, 65, 128, 12161), repeat=2):
        plan = gemm(rows, columns, 5, "float32", split=False)
        tile = plan.configuration.BLOCK_M
        down, across = math.ceil(rows / tile), math.ceil(columns / tile)
        assert plan.grid(132) == (down * across, 1)
        assert (down - 1) * tile < rows <= down * tile


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums(dtype):
    for n, m in itertools.product(EXTENTS, repeat=2):
        plan = column_sum(n, m, dtype)
        across, down = plan.lanes
        vector = VECTOR_BYTES // ITEMSIZE[dtype]
        assert across * down == plan.configuration.THREADS
        assert plan.column_blocks * across * vector >= m
        assert (plan.column_blocks - 1) * across * vector < max(1, m)
        assert plan.splits * plan.split_length >= n
        assert (plan.splits - 1) * plan.split_length < max(1, n)
        assert 1 <= plan.column_blocks <= GRID_X
        assert 1 <= plan.splits <= GRID_Y
        assert plan.splits == 1 or plan.splits * m <= 2 * 32 * 8 * COLUMN_SUM_BLOCKS


@pytest.mark.parametrize("op", OPERATIONS)
def test_steps_and_algorithms(op):
    """One step for each result that needs a plan; what `wrt` leaves out is not planned."""
    problem = Problem(op, 1000, 20, 30, "float32", OPERATIONS[op].wrt)
    expected = {
        "matmul_backward": ("ffma", {"dx", "dw"}),
        "bias_backward": ("column-sum", {"db"}),
        "sigmoid_backward": ("elementwise", set()),
        "sigmoid_bias_backward": ("column-sum", {"db"}),
        "dense_sigmoid_backward": ("ffma", {"dx", "dw", "db"}),
        "sigmoid": ("elementwise", set()),
        "dense_sigmoid": ("ffma", {"y"}),
    }
    plan = choose(problem, "gpu", "highest", "because", 1.0)
    assert (plan.algorithm, set(dict(plan.steps))) == expected[op]
    assert plan.reason.startswith("because")
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert len({plan, copy.deepcopy(plan)}) == 1
    assert dataclasses.asdict(plan)["op"] == op
    on_cpu = choose(problem, "cpu", "highest", "because", 1.0, other_seconds=2.0)
    assert (on_cpu.algorithm, dict(on_cpu.steps)) == ("numpy", {})
    assert (plan.cpu_seconds, plan.gpu_seconds, plan.predicted_seconds) == (None, 1.0, 1.0)
    assert (on_cpu.cpu_seconds, on_cpu.gpu_seconds, on_cpu.predicted_seconds) == (1.0, 2.0, 1.0)
    assert math.isnan(choose(problem, "cpu", "highest", "because", None).predicted_seconds)


def test_rows_of_dx_and_y_are_never_split():
    for n in EXTENTS[:-1]:
        for op in ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid"):
            plan = choose(Problem(op, n, 3, 10**6, "float32", ("x",)), "gpu", "highest", "", 0)
            assert all(step.splits == 1 for name, step in plan.steps if name != "db")


@pytest.mark.parametrize("wrt", [("x",), ("w",), ("b",), ()])
def test_wrt_plans_less(wrt):
    plan = choose(Problem("dense_sigmoid_backward", 9, 8, 7, "float32", wrt), "gpu", "high", "", 0)
    assert set(dict(plan.steps)) == {f"d{name}" for name in wrt}


# ---- the choice of an algorithm


def problems(dtypes=DTYPES, extents=(0, 1, 10, 15, 16, 33, 64, 256, 1000, 4096, 12161)):
    for op, dtype in itertools.product(PRODUCTS, dtypes):
        for n, k, m in itertools.product((0, 1, 15, 600, 10**6), extents, extents):
            yield Problem(op, n, k, m, dtype, OPERATIONS[op].wrt, OPERATIONS[op].reads)


@pytest.mark.slow
@pytest.mark.parametrize("facts", DEVICES, ids=lambda facts: facts.name)
def test_every_launch_is_legal_on_its_device(facts):
    """Algorithms that the device has, grids that CUDA allows, shared memory that there is."""
    limit = SHARED_A_BLOCK[facts.compute_capability] << 10
    rates = rates_of(facts.compute_capability)
    on_planes = "wgmma" if rates.warpgroup_16 else "mma"
    seen = set()
    for problem, precision in itertools.product(problems(), PRECISIONS):
        plan = choose(problem, "gpu", precision, "", 0, facts)
        for name, step in plan.steps:
            if isinstance(step, FusedLayer):
                assert step.blocks <= GRID_X
                assert step.splits <= GRID_Y
                assert step.configuration.shared_bytes <= limit
                separately = {"mma": on_planes}.get(step.algorithm, step.algorithm)
                assert (separately, step.planes) in candidates(
                    row_independent(problem), precision, facts.compute_capability
                )
            if not isinstance(step, Gemm):
                continue
            seen.add((step.algorithm, step.planes))
            assert (step.algorithm, step.planes) in candidates(
                row_independent(problem), precision, facts.compute_capability
            )
            assert (step.algorithm == "dmma") <= (problem.dtype == "float64")
            assert (step.algorithm == on_planes) == (step.planes > 0)
            assert step.splits == 1 or name == "dw"
            assert step.blocks <= GRID_X
            assert step.splits <= GRID_Y
            assert step.configuration.shared_bytes <= limit
    has = {"ffma": True, "dmma": rates.tensor_64 > 0, on_planes: rates.tensor_16 > 0}
    assert {algorithm for algorithm, _ in seen} == {name for name, there in has.items() if there}


@pytest.mark.slow
@pytest.mark.parametrize("facts", DEVICES, ids=lambda facts: facts.name)
def test_precisions_are_kept(facts):
    """Planes enough for the class, FFMA if asked for or if a sum is short."""
    least = {"highest": EXACT_PLANES, "high": 2, "medium": 1}
    for problem in problems(("float32",)):
        ieee = choose(problem, "gpu", "ieee", "", 0, facts)
        assert {step.algorithm for _, step in ieee.steps if isinstance(step, Gemm)} <= {"ffma"}
        for precision, planes in least.items():
            steps = choose(problem, "gpu", precision, "", 0, facts).steps
            names = [name for name, _ in steps]
            for _, step in steps:
                if isinstance(step, Gemm) and step.planes:
                    assert step.planes >= planes
                    assert step.planes < EXACT_PLANES or step.contraction >= EXACT_TERMS
                if isinstance(step, FusedLayer) and step.planes:
                    assert step.planes == EXACT_PLANES
                    assert precision != "highest" or (
                        step.m >= RECOVERED_TERMS and facts.compute_capability == (9, 0)
                    )
                    assert "w" not in problem.wrt or step.n >= RECOVERED_TERMS or "dw" in names


@pytest.mark.slow
@pytest.mark.parametrize("facts", DEVICES, ids=lambda facts: facts.name)
def test_a_row_is_computed_alike_in_every_batch_and_whatever_else_is_wanted(facts):
    for op, dtype, precision in itertools.product(PRODUCTS, DTYPES, PRECISIONS):
        name = "y" if op == "dense_sigmoid" else "dx"
        for k, m in itertools.product((3, 16, 64, 128, 512, 4096), repeat=2):
            found = set()
            for n in (1, 15, 127, 128, 4096, 10**6):
                wrts = [("x",), ("x", "w"), OPERATIONS[op].wrt] if name == "dx" else [()]
                for wrt in wrts:
                    problem = Problem(op, n, k, m, dtype, wrt, OPERATIONS[op].reads)
                    plan = choose(problem, "gpu", precision, "", 0, facts)
                    step = plan.layer or plan.gemm(name)
                    splits = 1 if plan.layer else step.splits  # which are of dw alone
                    found.add((step.algorithm, step.planes, splits))
            assert len(found) == 1


@pytest.mark.slow
def test_the_choice_has_the_least_predicted_time():
    for facts in DEVICES:
        for problem in problems(extents=(16, 64, 512, 4096)):
            for precision in PRECISIONS:
                choice = fastest(problem, precision, facts)
                times = [
                    kernel_seconds(problem, *one, facts)
                    for one in candidates(problem, precision, facts.compute_capability)
                ]
                assert choice.seconds == min(times)
                assert math.isfinite(choice.seconds)
                assert choice.seconds > 0


def test_tensor_cores_where_they_pay():
    """Six products of planes against one in the ordinary units: their rates decide."""
    t4, a100, _, rtx_4090, h200, _, _ = DEVICES

    def chosen(facts, precision="highest", dtype="float32", shape=(8192, 4096, 4096)):
        problem = Problem("dense_sigmoid_backward", *shape, dtype, ("x", "w", "b"), 2)
        plan = choose(problem, "gpu", precision, "", 0, facts)
        step = plan.layer or plan.gemm("dx")
        return step.algorithm, step.planes

    assert [chosen(one) for one in (a100, h200)] == [("mma", 3), ("wgmma", 3)]
    assert [chosen(one, "high") for one in (a100, h200)] == [("mma", 2), ("wgmma", 2)]
    assert chosen(h200, "medium") == ("wgmma", 1)
    assert [chosen(one, "medium") for one in (a100, rtx_4090)] == [("mma", 1)] * 2
    assert [chosen(rtx_4090, one) for one in ("highest", "high")] == [("ffma", 0)] * 2
    assert {chosen(t4, one) for one in PRECISIONS} == {("ffma", 0)}
    for shape in (10**6, 64, 64), (10**6, 128, 128):  # by the fused kernel
        for precision in ("high", "medium"):
            assert [chosen(one, precision, shape=shape) for one in (a100, h200)] == [("mma", 3)] * 2
        assert chosen(rtx_4090, shape=shape) == ("ffma", 0)
        assert chosen(a100, shape=shape) == ("ffma", 0)  # where so few terms lose too much
    assert chosen(h200, shape=(10**6, 128, 128)) == ("mma", 3)
    assert chosen(h200, shape=(10**6, 128, 127)) == ("ffma", 0)
    for dtype in ("float16", "bfloat16"):
        assert chosen(rtx_4090, dtype=dtype) == ("mma", 1)
        assert chosen(h200, "ieee", dtype) == ("ffma", 0)
    assert [chosen(one, dtype="float64") for one in (a100, h200)] == [("dmma", 0)] * 2
    assert chosen(rtx_4090, dtype="float64") == ("ffma", 0)


def test_a_short_sum_over_the_batch_is_by_multiply_adds():
    """That of dw over few rows; dx of the same call is on tensor cores."""
    problem = Problem("matmul_backward", EXACT_TERMS - 1, 4096, 4096, "float32", ("x", "w"))
    plan = choose(problem, "gpu", "highest", "", 0, FAST)
    assert (plan.gemm("dx").algorithm, plan.gemm("dw").algorithm) == ("wgmma", "ffma")


@pytest.mark.parametrize("op", ["matmul_backward", "dense_sigmoid_backward"])
def test_a_call_of_short_sums_alone_is_by_multiply_adds(op):
    """And says so; no pass makes planes for it, and no dz."""
    problem = Problem(op, EXACT_TERMS - 1, 4096, 4096, "float32", ("w",))
    plan = choose(problem, "gpu", "highest", "", 0, FAST)
    assert plan.algorithm == plan.gemm("dw").algorithm == "ffma"
    assert "FFMA, because sums have few terms" in plan.reason
    assert set(dict(plan.steps)) == {"dw"}
    longer = replace(problem, n=EXACT_TERMS)
    assert choose(longer, "gpu", "highest", "", 0, FAST).algorithm == "wgmma"
    times = (gpu_seconds(one, "highest", FAST, from_host=False) for one in (problem, longer))
    assert all(0 < seconds < 1e-3 for seconds in times)


# ---- fused layers


@pytest.mark.parametrize(("dtype", "algorithm"), FUSED)
def test_fused_layers(dtype, algorithm):
    """Splits are whole steps that cover the rows, none of them empty; blocks cover the inputs."""
    for n, k, m in itertools.product(EXTENTS, repeat=3):
        problem = Problem("dense_sigmoid_backward", n, k, m, dtype, ("x", "w", "b"), 2)
        plan = fused_layer(problem, algorithm)
        room = [one for one in FUSED[dtype, algorithm] if m <= one.OUTPUTS]
        assert (plan is None) == (not room)
        if plan is None or k > 2**30:
            continue
        assert (plan.n, plan.k, plan.m, plan.algorithm) == (n, k, m, algorithm)
        one = plan.configuration
        assert one == min(room, key=lambda one: one.OUTPUTS)
        assert (plan.blocks - 1) * one.INPUTS < max(1, k) <= plan.blocks * one.INPUTS
        assert plan.split_length % one.ROWS == 0
        assert plan.splits * plan.split_length >= n
        assert (plan.splits - 1) * plan.split_length < max(1, n)
        assert plan.blocks <= GRID_X
        assert 1 <= plan.splits <= GRID_Y
        if plan.splits > 1:
            assert plan.blocks * plan.splits <= 1024
    assert fused_layer(Problem("matmul_backward", 9, 9, 9, dtype, ("x",)), algorithm) is None


def bytes_fused(problem, plan):
    """Count what each block moves of its rows; w stays in a cache."""
    n, k, m, moved = problem.n, problem.k, problem.m, 0
    for split, block in itertools.product(range(plan.splits), range(plan.blocks)):
        rows = min(plan.split_length, n - split * plan.split_length)
        inputs = min(plan.configuration.INPUTS, k - block * plan.configuration.INPUTS)
        moved += rows * (2 * m + inputs)  # dy, y, x
        moved += rows * inputs  # dx
    moved += 2 * k * m + m  # w; dw and db
    partial = 2 * 4 * plan.splits * (k * m + m) if plan.splits > 1 else 0
    return ITEMSIZE[problem.dtype] * moved + partial


def bytes_separate(problem, algorithm):
    """Count what each launch moves if its operands come once from memory."""
    n, k, m = problem.n, problem.k, problem.m
    planes = FUSED[problem.dtype, algorithm][0].planes
    splits = gemm(k, m, n, problem.dtype, split=True, algorithm=algorithm, planes=planes).splits
    if (problem.dtype, algorithm) == ("float32", "mma"):  # dx uses FFMA
        into_planes = 4 * (2 * n * m + n * k) + 6 * (n * m + n * k)
        dx, dw = 4 * (2 * n * m + k * m + n * k), 6 * (n * k + n * m) + 4 * k * m
        return into_planes + dx + dw + 2 * 4 * splits * k * m
    dz = n * m if algorithm == "mma" else 2 * n * m  # stored, or dy and y again
    db = 2 * n * m + (n * m if algorithm == "mma" else 0)
    dx, dw = dz + k * m + n * k, n * k + dz + k * m
    partial = 2 * 4 * splits * k * m if splits > 1 else 0
    return ITEMSIZE[problem.dtype] * (db + dx + dw) + partial


@pytest.mark.parametrize(("dtype", "algorithm"), FUSED)
def test_fused_where_it_moves_fewer_bytes(dtype, algorithm):
    """And nowhere else, whatever is wanted and on every device with the shared memory for it."""
    precision = "ieee" if algorithm == "ffma" else "highest"
    every, chosen = ("x", "w", "b"), set()
    extents = (1, 10, 64, 65, 128, 129, 200, 256, 257, 1000)
    for n, k, m in itertools.product((1, 64, 1000, 40_000, 10**6), extents, extents):
        problem = Problem("dense_sigmoid_backward", n, k, m, dtype, every, 2)
        layer = fused_layer(problem, algorithm)
        counted = problem
        if layer is not None and layer.planes == EXACT_PLANES:  # bits of dx tell both ways apart
            counted = replace(problem, n=MANY_ROWS)
        fewer = layer is not None and bytes_fused(
            counted, fused_layer(counted, algorithm)
        ) < bytes_separate(counted, algorithm)
        chosen.add(fewer)
        for facts, wrt in zip(DEVICES, itertools.cycle([every, ("w",), ("x",), ("b",)])):
            fits = (
                layer
                and layer.configuration.shared_bytes
                <= SHARED_A_BLOCK[facts.compute_capability] << 10
            )
            expected = layer if fewer and fits else None
            wanted = replace(problem, wrt=wrt)
            assert fused_path(wanted, algorithm, facts) == expected
            if algorithm == "mma":
                taken = choose(problem, "gpu", precision, "", 0, facts)
                if taken.algorithm != "mma" or dtype == "float32":  # times decide between planes
                    continue
            plan = choose(wanted, "gpu", precision, "", 0, facts)
            assert plan.layer == expected
            assert ("all gradients by the fused kernel" in plan.reason) == (plan.layer is not None)
    assert chosen == {False, True}


def test_skinny_layers_are_fused():
    """The layers of the targets, on every device with the shared memory; nothing if not wanted."""
    for facts, k in itertools.product(DEVICES, (64, 128)):
        problem = Problem("dense_sigmoid_backward", 10**6, k, k, "float32", ("x", "w", "b"), 2)
        layer = choose(problem, "gpu", "highest", "", 0, facts).layer
        assert (layer is not None) == (k == 64 or facts.compute_capability > (7, 5))
        assert choose(replace(problem, wrt=()), "gpu", "highest", "", 0, facts).steps == ()
        half = choose(replace(problem, dtype="bfloat16"), "gpu", "highest", "", 0, facts)
        assert (half.layer is not None) == (facts.compute_capability > (7, 5))
        assert half.planes == dict.fromkeys(("dx", "dw"), int(half.layer is not None))
        assert choose(problem, "gpu", "highest", "", 0).layer is None  # of no device


def test_dw_of_few_rows_is_separate():
    """Beside dx from planes, whose rows keep their bits; alone, it uses FFMA."""
    h200 = DEVICES[4]
    few = Problem("dense_sigmoid_backward", RECOVERED_TERMS - 1, 128, 128, "float32", ("x", "w"), 2)
    plan = choose(few, "gpu", "highest", "", 0, h200)
    assert plan.planes == {"dx": 3, "dw": 0}
    assert plan.separate_dw == gemm(128, 128, few.n, "float32", split=True)
    assert "all gradients except dw, whose sums have few terms, by the fused kernel" in plan.reason
    longer = choose(replace(few, n=RECOVERED_TERMS), "gpu", "highest", "", 0, h200)
    assert longer.planes == {"dx": 3, "dw": 3}
    assert longer.separate_dw is None
    for wrt in ("x",), ("x", "b"):
        assert choose(replace(few, wrt=wrt), "gpu", "highest", "", 0, h200).layer == plan.layer
    for wrt in ("w",), ("w", "b"):  # whose bits are those beside others
        assert choose(replace(few, wrt=wrt), "gpu", "highest", "", 0, h200).steps == plan.steps


def test_shared_memory_of_devices():
    assert {one: rates_of(one).shared_kb for one in SHARED_A_BLOCK} == SHARED_A_BLOCK


def test_unknown_devices_have_the_rates_of_what_is_known_below():
    assert rates_of((8, 7)) == RATES[8, 6]
    assert rates_of((99, 0)) == RATES[12, 0]
    assert rates_of((5, 0)) == RATES[7, 5]


def test_reasons_name_the_arithmetic(gpu):
    gpu(FAST)
    operands = layer(8192, 4096, 4096)
    says = {
        "highest": "products on tensor cores from 3 bfloat16 planes, predicted",
        "high": "products on tensor cores from 2 scaled float16 planes, predicted",
        "medium": "products on tensor cores from 1 scaled float16 plane, predicted",
        "ieee": "products by IEEE FFMA",
    }
    for precision, words in says.items():
        plan = gpugrad.plan("matmul_backward", *operands, device="gpu", precision=precision)
        assert f"; {words}" in plan.reason
    for dtype in ("float16", "float64"):
        plan = gpugrad.plan("matmul_backward", *layer(8192, 4096, 4096, dtype), device="gpu")
        assert f"products on {dtype} tensor cores, predicted" in plan.reason


def test_predicted_times_of_transfers_are_added():
    problem = Problem("matmul_backward", 1000, 64, 64, "float32", ("x", "w"))
    there = gpu_seconds(problem, "highest", FAST, from_host=False)
    assert gpu_seconds(problem, "highest", FAST, from_host=True) > there > 0


# ---- the choice of a device


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU with given facts, or with a given thing missing."""
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)

    class Runtime:
        def __init__(self, facts):
            self.facts = lambda device: facts

    def pretend(facts=None, missing=None):
        monkeypatch.setattr(dispatch, "gpu_missing", lambda: missing)
        monkeypatch.setattr(dispatch, "runtime", lambda: Runtime(facts))

    return pretend


def layer(n, k, m, dtype="float32"):
    """dy, x, w of any size, at no cost."""
    zero = np.zeros((), dtype)
    return tuple(np.broadcast_to(zero, shape) for shape in ((n, m), (n, k), (k, m)))


def test_auto_takes_the_shorter_predicted_time(gpu):
    gpu(FAST)
    small = gpugrad.plan("matmul_backward", *layer(8, 8, 8))
    large = gpugrad.plan("matmul_backward", *layer(8192, 4096, 4096))
    assert (small.device, large.device) == ("cpu", "gpu")
    for plan in (small, large):
        assert "predicted" in plan.reason
        assert "on fast with transfers" in plan.reason
    forced = gpugrad.plan("matmul_backward", *layer(8192, 4096, 4096), device="cpu")
    assert large.predicted_seconds < forced.predicted_seconds


def test_auto_leaves_what_does_not_fit_on_the_host(gpu):
    gpu(SLOW)
    plan = gpugrad.plan("matmul_backward", *layer(2**20, 4096, 4096))
    assert plan.device == "cpu"
    assert "bytes" in plan.reason


def test_auto_without_a_gpu(gpu):
    gpu(missing="there is no driver")
    plan = gpugrad.plan("matmul_backward", *layer(8192, 4096, 4096))
    assert plan.device == "cpu"
    assert plan.reason == "no GPU can be used: there is no driver"


def test_explicit_then_environment_then_auto(gpu, monkeypatch):
    gpu(FAST)
    operands = layer(8, 8, 8)
    assert gpugrad.plan("matmul_backward", *operands, device="gpu").reason.startswith(
        "device is 'gpu'"
    )
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    plan = gpugrad.plan("matmul_backward", *operands)
    assert (plan.device, plan.reason.split(";")[0]) == ("gpu", "GPUGRAD_DEVICE is 'gpu'")
    plan = gpugrad.plan("matmul_backward", *operands, device="cpu")
    assert (plan.device, plan.reason) == ("cpu", "device is 'cpu'")
    monkeypatch.setenv("GPUGRAD_DEVICE", "auto")
    assert "predicted" in gpugrad.plan("matmul_backward", *operands).reason


def test_multiply_adds_are_planned_alike_on_every_device(gpu):
    plans = []
    for facts in (SLOW, FAST):
        gpu(facts)
        plans.append(
            gpugrad.plan("matmul_backward", *layer(5000, 300, 200), device="gpu", precision="ieee")
        )
    assert plans[0].steps == plans[1].steps
    assert plans[0].predicted_seconds > plans[1].predicted_seconds


def test_predictions_grow_with_the_work(gpu):
    gpu(FAST)
    for device in ("cpu", "gpu"):
        times = [
            gpugrad.plan("matmul_backward", *layer(n, 64, 64), device=device).predicted_seconds
            for n in (0, 10**3, 10**5, 10**7)
        ]
        assert times == sorted(times)
        assert times[0] > 0


@pytest.mark.parametrize(
    ("op", "operands", "options", "error", "says"),
    [
        ("conv_backward", (), {}, ArgumentError, "plan: op is 'conv_backward', expected one of"),
        ("bias_backward", (), {}, ArgumentError, "plan: bias_backward takes the arrays dy, not 0"),
        ("sigmoid", (1, 2), {}, ArgumentError, "plan: sigmoid takes the arrays z, not 2"),
        ("sigmoid", layer(2, 3, 4)[:1], {"wrt": ("x",)}, ArgumentError, "plan: .* no option wrt"),
        ("sigmoid", layer(2, 3, 4)[:1], {"out": 1}, ArgumentError, "plan: .* no option out"),
        ("sigmoid", layer(2, 3, 4)[:1], {"z": 1}, ArgumentError, "plan: .* no option z"),
        ("sigmoid", ([1.0],), {}, DTypeError, "sigmoid: z is a list"),
        ("matmul_backward", layer(2, 3, 4)[::-1], {}, ShapeError, "matmul_backward: "),
        ("sigmoid", layer(2, 3, 4)[:1], {"device": "x"}, ArgumentError, "sigmoid: device is 'x'"),
        ("sigmoid", layer(2, 3, 4)[:1], {"device": "gpu"}, DeviceError, "sigmoid: device is 'gpu'"),
        (
            "matmul_backward",
            layer(2, 3, 4),
            {"precision": "x"},
            ArgumentError,
            "matmul_backward: precision",
        ),
    ],
)
def test_bad_arguments(gpu, op, operands, options, error, says):
    gpu(missing="there is no driver")
    with pytest.raises(error, match=f"^{says}"):
        gpugrad.plan(op, *operands, **options)


def test_z_and_wrt_are_options(gpu):
    gpu(FAST)
    dy, x, w = layer(5000, 64, 32)
    plan = gpugrad.plan("dense_sigmoid_backward", dy, None, x, w, z=dy, wrt=("b",), device="gpu")
    assert set(dict(plan.steps)) == {"layer"}
    plan = gpugrad.plan(
        "dense_sigmoid_backward", *layer(5000, 64, 512)[:1], None, *layer(5000, 64, 512)[1:],
        z=layer(5000, 64, 512)[0], wrt=("b",), device="gpu",
    )  # fmt: skip
    assert set(dict(plan.steps)) == {"db"}
