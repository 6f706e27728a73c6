"""Plans are pure functions of shapes: valid everywhere, the same on every device, and explained."""

import copy
import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest

import gpugrad
from gpugrad import _dispatch
from gpugrad._operations import OPERATIONS
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from gpugrad.plan import (
    COLUMN_SUM_BLOCKS,
    GEMM_STEP,
    ITEMSIZE,
    LARGE_TILE,
    SMALL_TILE,
    SPLIT_BLOCKS,
    THREADS,
    VECTOR_BYTES,
    DeviceFacts,
    Problem,
    choose,
    column_sum,
    gemm,
)
from tests.cases import DTYPES, LARGE_TILES

EXTENTS = (0, 1, 2, 15, 16, 17, 63, 64, 65, 128, 129, 1000, 4099, 12161, 10**6, 2**31 + 5)
LARGEST_WORKSPACE = SPLIT_BLOCKS * LARGE_TILE**2
GRID_X, GRID_Y = 2**31 - 1, 65535

SLOW = DeviceFacts("slow", (7, 5), 14, 1e9, 1e11, 4 << 30)
FAST = DeviceFacts("fast", (9, 0), 132, 2e9, 4.8e12, 140 << 30)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products(dtype, split):
    """Splits are whole steps that cover the contraction, none of them empty."""
    for rows, columns, contraction in itertools.product(EXTENTS, repeat=3):
        if rows * columns > 2**42:
            continue  # no memory holds it
        plan = gemm(rows, columns, contraction, dtype, split=split)
        assert (plan.rows, plan.columns, plan.contraction) == (rows, columns, contraction)
        assert plan.tile in (SMALL_TILE, LARGE_TILE)
        assert plan.split_length % GEMM_STEP == 0
        assert plan.split_length > 0
        assert plan.splits * plan.split_length >= contraction
        assert (plan.splits - 1) * plan.split_length < max(1, contraction)
        assert plan.splits == 1 or split
        assert plan.workspace_elements <= LARGEST_WORKSPACE
        assert plan.blocks <= GRID_X
        assert 1 <= plan.splits <= GRID_Y


def test_large_tiles_need_a_large_result_that_fills_them():
    def tile(rows, columns, dtype="float32"):
        return gemm(rows, columns, 64, dtype, split=False).tile

    assert tile(8192, 4096) == LARGE_TILE
    assert tile(8192, 4096, "float64") == SMALL_TILE
    assert tile(256, 512) == SMALL_TILE  # eight large tiles leave a GPU idle
    assert tile(10**6, 64) == SMALL_TILE  # half of every large tile would be empty
    assert tile(10**6, 128) == LARGE_TILE


@pytest.mark.usefixtures("large_tiles")
def test_the_tests_of_large_tiles_use_them():
    n, k, m = math.prod(LARGE_TILES.lead), LARGE_TILES.k, LARGE_TILES.m
    for rows, columns, contraction in ((n, k, m), (k, m, n), (n, m, k)):
        assert gemm(rows, columns, contraction, "float32", split=True).tile == LARGE_TILE


def test_tiles_cover_the_result():
    for rows, columns in itertools.product((1, 63, 64, 65, 128, 12161), repeat=2):
        plan = gemm(rows, columns, 5, "float32", split=False)
        tiles = math.ceil(rows / plan.tile), math.ceil(columns / plan.tile)
        assert plan.blocks == tiles[0] * tiles[1]
        assert (tiles[0] - 1) * plan.tile < rows <= tiles[0] * plan.tile


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums(dtype):
    for n, m in itertools.product(EXTENTS, repeat=2):
        plan = column_sum(n, m, dtype)
        across, down = plan.lanes
        vector = VECTOR_BYTES // ITEMSIZE[dtype]
        assert across * down == THREADS
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
    on_cpu = choose(problem, "cpu", "highest", "because", 1.0)
    assert (on_cpu.algorithm, dict(on_cpu.steps)) == ("numpy", {})


def test_rows_of_dx_and_y_are_never_split():
    for n in EXTENTS[:-1]:
        for op in ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid"):
            plan = choose(Problem(op, n, 3, 10**6, "float32", ("x",)), "gpu", "highest", "", 0)
            assert all(step.splits == 1 for name, step in plan.steps if name != "db")


@pytest.mark.parametrize("wrt", [("x",), ("w",), ("b",), ()])
def test_wrt_plans_less(wrt):
    plan = choose(Problem("dense_sigmoid_backward", 9, 8, 7, "float32", wrt), "gpu", "high", "", 0)
    assert set(dict(plan.steps)) == {f"d{name}" for name in wrt}


# ---- the choice of a device


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU with given facts, or with a given thing missing."""
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)

    class Runtime:
        def __init__(self, facts):
            self.facts = lambda device: facts

    def pretend(facts=None, missing=None):
        monkeypatch.setattr(_dispatch, "gpu_missing", lambda: missing)
        monkeypatch.setattr(_dispatch, "runtime", lambda: Runtime(facts))

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


def test_steps_do_not_depend_on_the_device(gpu):
    plans = []
    for facts in (SLOW, FAST):
        gpu(facts)
        plans.append(gpugrad.plan("matmul_backward", *layer(5000, 300, 200), device="gpu"))
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
    assert set(dict(plan.steps)) == {"db"}
