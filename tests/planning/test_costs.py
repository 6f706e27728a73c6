"""Predicted times: what they are made of, and how good choices by them are on recorded machines."""

import importlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.operations import OPERATIONS
from gpugrad.planning import machine_profile
from gpugrad.planning.configurations import WGMMA
from gpugrad.planning.cpu_costs import CACHED, GRAIN, KINDS, cpu_seconds, default_rates, work
from gpugrad.planning.gpu_costs import Copy, kernel_name, multiply_adds, product_work
from gpugrad.planning.problem import Gemm, Problem, products
from gpugrad.planning.tiles import slowdown
from tests.planning.profiles import FACTS, MACHINES, cpu_rates, gpu_rates, times
from tests.support.cases import DTYPES

plan = importlib.import_module("gpugrad.planning.choice")

SIZES = (0, 1, 64, 1000, 10**6)


def problem(op, n, k, m, dtype="float32"):
    operation = OPERATIONS[op]
    return Problem(op, n, k, m, dtype, operation.wrt, operation.reads)


def measured(machine):
    return replace(FACTS[machine], measured=gpu_rates(machine))


# ---- the CPU


def test_the_work_of_a_call():
    def counted(op, *size, wrt=None):
        one = problem(op, *size)
        found = work(one if wrt is None else replace(one, wrt=wrt))
        assert tuple(found) == KINDS
        return {kind: count for kind, count in found.items() if count}

    n, k, m = 30, 20, 10
    moved = n * k + k * m + n * m
    assert counted("sigmoid", 1, 0, 7) == {"sigmoid": 7}
    assert counted("sigmoid_backward", 1, 0, 7) == {"gradient": 7}
    assert counted("bias_backward", n, 0, m) == {"sum": n * m}
    assert counted("sigmoid_bias_backward", n, 0, m) == {"sum": n * m, "gradient": n * m}
    product = {"product": 2 * n * k * m, "moved": moved}
    assert counted("dense_sigmoid", n, k, m) == product | {"sigmoid": n * m}
    assert counted("matmul_backward", n, k, m, wrt=("w",)) == product
    both = {"product": 4 * n * k * m, "moved": 2 * moved}
    assert counted("matmul_backward", n, k, m) == both
    dz = {"gradient": n * m, "sum": n * m}
    assert counted("dense_sigmoid_backward", n, k, m) == both | dz
    assert counted("dense_sigmoid_backward", n, k, m, wrt=("b",)) == dz
    assert counted("dense_sigmoid_backward", n, k, m, wrt=()) == {}
    from_logits = work(problem("sigmoid_backward", 1, 0, 7), from_logits=True)
    assert (from_logits["gradient"], from_logits["sigmoid"]) == (0, 7)
    large = counted("sigmoid", 1, 0, CACHED)
    assert large == {"sigmoid": CACHED, "memory": 8 * CACHED - CACHED}


@pytest.mark.parametrize("machine", [None, *MACHINES])
def test_cpu_predictions_are_positive_and_grow(machine):
    rates = default_rates(4) if machine is None else cpu_rates(machine)
    for op, dtype in itertools.product(OPERATIONS, DTYPES):
        for k, m in itertools.product(SIZES[1:4], repeat=2):
            seconds = [
                cpu_seconds(problem(op, n, k, m, dtype), rates, rates.workers) for n in SIZES
            ]
            assert seconds == sorted(seconds)
            assert all(0 < one < math.inf for one in seconds)


def test_more_threads_help_from_the_grain_on():
    small, large = (problem("sigmoid", 1, 0, m) for m in (1000, 10**7))
    rates = default_rates(8)
    few, many = (cpu_seconds(large, rates, workers) for workers in (1, 8))
    assert few / many == pytest.approx(rates.speedup, rel=0.01)
    assert few > cpu_seconds(large, rates, 3) > many == cpu_seconds(large, rates, 80)
    assert cpu_seconds(small, rates, 1) == cpu_seconds(small, rates, 8) < GRAIN
    between = problem("sigmoid", 1, 0, 10**6)
    assert cpu_seconds(between, rates, 8) == rates.call["sigmoid"] + GRAIN


# ---- the GPU


@pytest.mark.parametrize("algorithm", ["ffma", "wgmma"])
def test_a_measured_kernel_takes_what_was_measured(algorithm):
    """A product is predicted by its kernel's rate, and its passes by the memory's."""
    facts = measured("server")
    one = Problem("matmul_backward", 8192, 4096, 4096, "float32", ("x",))
    planes = 3 if algorithm == "wgmma" else 0
    ((name, step),) = plan.steps_of(one, algorithm, planes)
    assert (name, step.configuration.BLOCK_N) == ("dx", 128)
    pairs = 6 if planes else 1
    assert product_work(step, 132) == pairs * 128**2 * 4096 * math.ceil(64 * 32 / 132) * 132
    called = "float32 wgmma 3 planes" if planes else "float32 ffma, tile 128"
    rate = dict(gpu_rates("server").multiply_adds)[called]
    assert multiply_adds("float32", step, facts) == rate
    passes = plan.passes(one, algorithm, planes)
    rates = facts.rates
    expected = product_work(step, 132) / rate + sum(passes) / rates.bandwidth
    expected += rates.launch * (len(passes) + 1)
    assert plan.kernel_seconds(one, algorithm, planes, facts) == pytest.approx(expected)


def test_what_narrow_tiles_of_warpgroups_wait_for():
    """Bytes a clock of one plane: 96 from the L2 cache, or of wide tiles 139 of shared memory."""
    narrow, wide = (Gemm(4096, 4096, 64, 1, 64, WGMMA[1][at]) for at in (0, 2))
    assert slowdown(narrow, 132) == pytest.approx(96 / 27.5)
    assert slowdown(wide, 132) == pytest.approx((64 + 64 / 3 + 160 / 3) / 128)
    few = replace(narrow, columns=64)  # which have the cache for themselves
    assert slowdown(few, 132) == pytest.approx((128 + 96) / 128)
    assert slowdown(replace(few, configuration=WGMMA[3][2]), 132) == 1


def test_what_is_not_measured_follows_from_the_properties():
    facts = FACTS["desktop"]
    one = Problem("matmul_backward", 8192, 4096, 4096, "bfloat16", ("x",))
    ((_, step),) = plan.steps_of(one, "ffma", 0)
    assert kernel_name("bfloat16", "ffma", 0, step.configuration.BLOCK_N) not in dict(
        gpu_rates("desktop").multiply_adds
    )
    by_properties = multiply_adds("bfloat16", step, facts)
    assert by_properties == multiply_adds("bfloat16", step, measured("desktop"))
    assert by_properties == pytest.approx(0.6 * 64 * 40 * 1.59e9)


def test_copies_of_arrays_on_the_host_are_counted():
    one = problem("dense_sigmoid_backward", 4096, 256, 128)
    facts = measured("desktop")
    there, from_host = (
        plan.gpu_seconds(one, "highest", facts, from_host=host) for host in (False, True)
    )
    copy = facts.rates.to_device
    assert copy == facts.rates.to_host == Copy(2e-5, 5e9)
    moved = (one.bytes_in + one.bytes_out) / 5e9
    assert from_host - there == pytest.approx(7 * 2e-5 + moved)  # dy, y, x, w; dx, dw, db


def test_measured_rates_decide_on_the_algorithm():
    """If planes are measured to be slow, products use FFMA."""
    layer = problem("matmul_backward", 8192, 4096, 4096)
    taken = {
        machine: plan.choose(layer, "gpu", "highest", "", None, measured(machine)).algorithm
        for machine in MACHINES
    }
    assert taken == {"server": "wgmma", "slow_link": "ffma", "desktop": "ffma"}
    assert plan.fastest(layer, "highest", FACTS["slow_link"]).algorithm == "wgmma"


@pytest.mark.parametrize("machine", MACHINES)
def test_measured_rates_let_no_row_depend_on_others(machine):
    facts = measured(machine)
    for dtype, precision in itertools.product(DTYPES, ("highest", "high", "medium", "ieee")):
        for k, m in itertools.product((16, 100, 512, 4096), repeat=2):
            found = set()
            for n, wrt in itertools.product((1, 64, 4096, 10**6), (("x",), ("x", "w"))):
                one = Problem("matmul_backward", n, k, m, dtype, wrt)
                step = plan.choose(one, "gpu", precision, "", None, facts).gemm("dx")
                found.add((step.algorithm, step.planes, step.splits))
            assert len(found) == 1


# ---- choices by predictions


def regret(predicted):
    """How many times longer than the best choice a choice by predictions takes, in the mean.

    `predicted` gives seconds on the CPU and on the GPU for a machine and a problem.
    """
    factors = []
    for one in times():
        call = problem(one["op"], one["n"], one["k"], one["m"], one["dtype"])
        on_cpu, on_gpu = predicted(one["machine"], call)
        recorded = one["cpu_seconds"], one["gpu_seconds"]
        factors.append(recorded[on_gpu < on_cpu] / min(recorded))
    return np.mean(factors), max(factors)


def model(machine, call):
    rates = cpu_rates(machine)
    on_gpu = plan.gpu_seconds(call, "highest", measured(machine), from_host=True)
    return cpu_seconds(call, rates, rates.workers), on_gpu


def test_choices_by_the_model_cost_little():
    """Recorded times lie within e^(0.3 g) of the model's, g normal: a wrong choice costs little.

    A choice is wrong where the two times lie closer than their errors, whose ratio has a spread of
    0.3 √2 = 0.42. So the mean regret is below E e^|0.42 g| = 1.5, and far below, for most times are
    further apart. The largest of 420 is below e^(0.42 · 3.5) = 4.4.
    """
    mean, largest = regret(model)
    assert mean < 1.05
    assert largest < 4.4


@pytest.mark.parametrize(
    "broken",
    [
        lambda machine, call: (0, 1),
        lambda machine, call: (1, 0),
        lambda machine, call: (
            model(machine, call)[0],
            plan.gpu_seconds(call, "highest", measured(machine), from_host=False),
        ),
    ],
    ids=["always the CPU", "always the GPU", "copies for free"],
)
def test_worse_models_are_distinguished(broken):
    mean, _ = regret(broken)
    assert mean > 1.2


# ---- what a plan says


@pytest.mark.parametrize("machine", MACHINES)
def test_plan_tells_both_times_and_why(machine, monkeypatch):
    class Runtime:
        def facts(self, device):
            return FACTS[machine]

    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(dispatch, "runtime", Runtime)
    monkeypatch.setattr(machine_profile, "with_rates", lambda facts: measured(machine))
    monkeypatch.setattr(machine_profile, "cpu_rates", lambda workers: cpu_rates(machine))
    chosen = set()
    for n in (8, 8192):
        dy, w = (np.broadcast_to(np.float32(0), shape) for shape in ((n, 4096), (4096, 4096)))
        auto, cpu, gpu = (
            gpugrad.plan("matmul_backward", dy, dy, w, device=device)
            for device in ("auto", "cpu", "gpu")
        )
        assert auto.device == ("gpu" if auto.gpu_seconds < auto.cpu_seconds else "cpu")
        assert auto.predicted_seconds == min(auto.cpu_seconds, auto.gpu_seconds)
        for seconds in (auto.cpu_seconds, auto.gpu_seconds):
            assert f"{seconds:.2g} s" in auto.reason
        assert "\n" not in auto.reason
        assert (cpu.cpu_seconds, cpu.gpu_seconds) == (auto.cpu_seconds, None)
        assert (gpu.cpu_seconds, gpu.gpu_seconds) == (auto.cpu_seconds, auto.gpu_seconds)
        assert gpu.predicted_seconds == gpu.gpu_seconds
        chosen.add(auto.device)
    assert "gpu" in chosen


def test_products_are_listed_by_result():
    assert [one[0] for one in products(problem("dense_sigmoid_backward", 3, 4, 5))] == ["dx", "dw"]
    assert products(problem("sigmoid", 1, 0, 5)) == ()
