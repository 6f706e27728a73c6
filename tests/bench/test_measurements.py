"""The statistics, tables and sections of `bench`, on a GPU where they need one."""

import functools
import json
import math
import time
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from bench import (
    accuracy,
    first_call,
    graphs,
    kernels,
    products,
    report,
    section,
    timings,
    workload,
)
from bench.workload import Workload
from gpugrad.benchmark import roofline, samples, timer
from gpugrad.benchmark.peers import pytorch
from gpugrad.benchmark.peers.cupy_cublas import no_cublas
from gpugrad.calls import cache
from gpugrad.operations import OPERATIONS
from gpugrad.planning.configurations import REDUCTION
from gpugrad.planning.problem import Problem
from gpugrad.testing import operations, reference
from gpugrad.testing.bounds import Answer
from gpugrad.testing.product_data import FAMILIES
from tests.support.cases import DTYPES
from tests.support.emulator_runtime import FACTS

OPS_AND_DTYPES = [(op, dtype) for op in OPERATIONS for dtype in DTYPES]


@pytest.fixture(autouse=True)
def _no_pytorch(monkeypatch):
    monkeypatch.setattr(pytorch, "no_gpu", lambda: "no PyTorch here")


def a_section(seconds=60.0, quick=True):
    return section.Section(quick=quick, deadline=time.monotonic() + seconds)


# ---- statistics and choices


def test_median_and_quartiles():
    assert samples.summarize([5.0, 1, 3, 2, 4]) == samples.Summary(3, 2, 4, 5)
    assert samples.summarize([1.0, 2]) == samples.Summary(1.5, 1.25, 1.75, 2)
    assert samples.summarize([7.0]) == samples.Summary(7, 7, 7, 1)
    assert math.isnan(samples.summarize([]).median)
    assert samples.summarize([5.0, 1, 3, 2, 4]).spread == pytest.approx(1 / 3)


def test_ratios_are_taken_round_by_round():
    drifting = [1.0, 2, 3, 4]
    assert samples.ratio([2 * one for one in drifting], drifting) == samples.Summary(2, 2, 2, 4)


@pytest.mark.parametrize(
    ("set_bytes", "cache", "limit", "count", "cold"),
    [
        (1000, 60, 10**6, 2, True),  # one set overflows the cache, but its end may stay
        (100, 60, 10**6, 3, True),
        (1, 60, 10**6, 121, True),
        (1, 60, 50, 50, False),
        (10**7, 60, 10**6, 1, False),
        (0, 60, 10**6, 121, True),
    ],
)
def test_how_many_sets_are_rotated_over(set_bytes, cache, limit, count, cold):
    assert workload.copies(set_bytes, cache, limit) == (count, cold)
    if cold and set_bytes:
        assert (count - 1) * set_bytes >= 2 * cache


def test_rounds_are_interleaved_and_go_on_through_the_sets(monkeypatch):
    monkeypatch.setattr(timer, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(timer, "SAMPLE_SECONDS", 0.0)
    seen = []
    sets = [functools.partial(seen.append, f"a{index}") for index in range(3)]
    pair = [
        timer.Candidate("a", timer.rotating(sets), within=lambda: timer.prepared(seen.clear)),
        timer.Candidate("b", lambda: seen.append("b"), operations=10),
    ]
    order = []
    monkeypatch.setattr(
        timer.Candidate,
        "take",
        lambda one, watch, calls=1: (one.call(), order.append(one.name), one.samples.append(1.0)),
    )
    budget = timer.TimeBudget(60, 0.0, min_rounds=7, rests=False)
    assert timer.interleave(pair, budget) == 7
    assert "".join(order) == ("ab" + "ba" + "ab" * 1) + "baabbaab"
    assert seen == ["a1", "b"]  # the eighth call of the first candidate


def test_seconds_are_those_of_an_operation(monkeypatch):
    one = timer.Candidate("b", lambda: time.sleep(0.01), operations=10)
    one.take(timer.Stopwatch("cpu"), 2)
    assert 1e-3 <= one.samples[0] == one.host[0] < 5e-3


def test_samples_on_a_gpu_fit_the_queue(gpu, monkeypatch):
    called = []
    monkeypatch.setattr(timer, "SAMPLE_SECONDS", 1e9)
    monkeypatch.setattr(timer, "WARM_SECONDS", 0.0)
    one = timer.Candidate("short", lambda: called.append(None), "gpu")
    timer.interleave([one], timer.TimeBudget(1, 0.0, rests=False))
    assert len(called) <= timer.MAX_GPU_CALLS + 3
    assert len(one.samples) == len(one.host) == 1


def test_bytes_and_operations():
    job = Workload("dense_sigmoid_backward", (10, 3, 5), "float32")
    assert job.bytes_in == 4 * (50 + 50 + 30 + 15)
    assert job.bytes_moved == job.bytes_in + 4 * (30 + 15 + 5)
    assert job.flops == 4 * 10 * 3 * 5
    assert Workload("bias_backward", (10, 3, 5), "float16").bytes_moved == 2 * 55
    assert Workload("sigmoid", (10, 3, 5), "float64").flops == 0


def test_what_is_timed():
    every = timings.rows(quick=False)
    assert len({row.workload for row in every}) == len(every)
    assert {(row.workload.op, row.workload.dtype) for row in every} == set(OPS_AND_DTYPES)
    assert every[0].compiled
    assert {row.workload for row in timings.rows(quick=True)} <= {row.workload for row in every}


def test_scaled_errors():
    exact = np.array([1.0, np.inf, 2.0, 0.0])
    result = np.array([1.5, 0.0, 2.0, 2.0**-149])
    answer = Answer(exact, np.zeros(4), np.array([2.0, 1.0, np.inf, 0.0]))
    np.testing.assert_array_equal(
        accuracy.scaled_errors(result, answer, "float32"), [0.25 * 2**24, 2]
    )
    finding = accuracy.Finding("sigmoid", "float32")
    finding.errors["gpugrad"] = [np.array([3.0, 4.0]), np.array([])]
    assert finding.document()["errors"] == {"gpugrad": {"largest": 4, "rms": math.sqrt(12.5)}}
    finding.errors["gpugrad"] += [np.array([np.nan]), np.array([1.0])]
    assert math.isnan(finding.document()["errors"]["gpugrad"]["largest"])


@pytest.mark.parametrize("op", OPERATIONS)
def test_magnitudes_bound_the_results(op):
    operands = operations.random_operands(op, (9, 4, 5), np.dtype("f8"), seed=0)
    results = operations.call(op, operands, device="cpu")
    for name, answer in reference(op, **operands).items():
        assert answer.magnitude.shape == results[name].shape
        assert (np.abs(results[name]) <= answer.magnitude * (1 + 1e-12)).all()


# ---- sections on a GPU


@pytest.fixture
def few_calls(gpu, monkeypatch):
    """A GPU, and as few calls as there can be: it may be emulated."""
    monkeypatch.setattr(workload, "copies", lambda *_: (2, True))
    monkeypatch.setattr(workload, "POOL", 4093)
    bandwidth = samples.Summary(1e9, 1e9, 1e9, 1)
    monkeypatch.setattr(roofline, "bandwidth", lambda *_: bandwidth)
    for name in ("SAMPLE_SECONDS", "WARM_SECONDS"):
        monkeypatch.setattr(timer, name, 0.0)
    budget = timer.TimeBudget(2, 0.0, rests=False)
    monkeypatch.setitem(timings.BUDGETS, True, budget)


@pytest.mark.parametrize(("op", "dtype"), OPS_AND_DTYPES)
def test_a_row_of_timings(few_calls, op, dtype):
    row = timings.Row(Workload(op, (33, 8, 17), dtype))
    found = timings.time_row(row, quick=True, torch=False)
    assert found["failures"] == []
    assert found["cold"]
    assert found["rounds"] == 2
    timings.rate(found, row.workload, 1e9)
    for name, ours in found["ours"].items():
        assert ours["error"] <= workload.TOLERANCES["tf32" if name == "medium" else dtype]
        assert ours["device"]["count"] == 2
        assert ours["of_copy"] > 0
        if no_cublas() is None or not OPERATIONS[op].products:
            assert ours["ratios"]["CuPy"]["median"] > 0
    by_class = bool(OPERATIONS[op].products) and dtype == "float32"
    assert next(iter(found["ours"])) == ("highest" if by_class else "gpugrad")
    if OPERATIONS[op].products and no_cublas() is not None:
        assert found["left_out"] == {"CuPy": f"ImportError: {no_cublas()}"}
    else:
        assert found["left_out"] == {}


def test_a_row_with_a_graph(few_calls):
    (row,) = timings_rows("bias_backward")
    found = timings.time_row(timings.Row(row.workload, small=True), quick=True, torch=False)
    assert found["failures"] == []
    assert found["left_out"] == {}
    assert found["ours"].keys() == {"gpugrad", "graph"}


def test_a_graph_that_writes_nothing_is_found_out(few_calls, monkeypatch):
    def writes_nothing(name, calls):
        return timer.Candidate(name, lambda: None, "gpu"), [calls[0]()]

    monkeypatch.setattr(graphs, "cupy_graph", writes_nothing)
    (row,) = timings_rows("bias_backward")
    row = timings.Row(row.workload, small=True)
    found = timings.time_row(row, quick=True, torch=False)
    assert found["left_out"] == {"graph": "wrong by nan"}
    assert found["failures"] == ["bias_backward 33x8x17 float32 graph: wrong by nan"]
    assert found["rounds"] == 2


def test_wrong_results_are_not_timed_and_fail_the_run(few_calls, monkeypatch):
    monkeypatch.setitem(workload.TOLERANCES, "float32", 0.0)
    monkeypatch.setattr(timings, "rows", lambda *, quick: timings_rows("bias_backward"))
    one = a_section()
    timings.work(one)
    assert "wrong by" in one.failures[0]
    assert one.data["rows"][0]["rounds"] == 0
    assert one.data["rows"][0]["ours"] == {}


def timings_rows(*ops):
    return [timings.Row(Workload(op, (33, 8, 17), "float32")) for op in ops]


@pytest.mark.slow
def test_the_section_of_timings(few_calls, monkeypatch):
    monkeypatch.setattr(timings, "rows", lambda *, quick: timings_rows(*OPERATIONS))
    one = a_section()
    timings.work(one)
    assert one.failures == []
    assert [row["op"] for row in one.data["rows"]] == list(OPERATIONS)
    assert one.summary.startswith("7 of 7 rows")
    short = a_section(seconds=1)
    timings.work(short)
    assert short.unfinished == "no time for 7 rows"
    json.dumps(section._finite(one.handed_over()), allow_nan=False)
    text = report.timings(one.data)
    assert "dense_sigmoid_backward 33x8x17" in text
    assert "  float32" in text


def test_copy_bandwidth(gpu):
    rate = roofline.bandwidth("gpu", 1 << 12)
    assert rate.count >= 3
    assert rate.median > 0


@pytest.mark.slow
def test_accuracy(gpu, monkeypatch):
    families = ["ordinary", "subnormal results"]
    monkeypatch.setattr(accuracy, "SIZES", ((129, 67, 33),))
    monkeypatch.setattr(products, "FAMILIES", families)
    one = a_section()
    accuracy.work(one)
    assert one.failures == []
    assert len(one.data["findings"]) == len(OPS_AND_DTYPES)
    for finding in one.data["findings"]:
        assert finding["ok"]
        assert finding["errors"]["gpugrad"]["largest"] < 50
        with_blas = no_cublas() is None or not bool(OPERATIONS[finding["op"]].products)
        assert ("CuPy" in finding["errors"]) == with_blas
    assert "28 of 28 within bounds" in one.summary
    assert "err/bound" in report.accuracy(one.data["findings"])
    assert [finding["data"] for finding in one.data["products"]] == families
    for finding in one.data["products"]:
        cublas = {"cuBLAS"} if no_cublas() is None else set()
        assert finding["errors"].keys() == {"ieee", "highest", "high", "medium"} | cublas
        assert finding["broken"] == []
    text = report.products(one.data["products"])
    assert "subnormal results" in text
    text.encode("ascii")


def test_products_that_break_a_promise_fail_the_run(gpu, monkeypatch):
    """A product of 10 bits is right for "medium" alone."""
    right = products.ours

    def ours(left, right_, precision):
        result = right(left, right_, precision)
        return result if precision == "ieee" else result.astype(np.float16).astype(np.float32)

    monkeypatch.setattr(products, "ours", ours)
    finding = products.Finding("ordinary", 256)
    products.measure(finding)
    assert finding.broken == ["highest", "high"]
    one = a_section(seconds=3)
    monkeypatch.setattr(products, "FAMILIES", ["ordinary"])
    assert products.compare(one, 0.5) == 0
    assert one.failures[0] == "highest breaks its promise: ordinary products of 256 terms"


def test_no_time_for_products(gpu):
    one = a_section(seconds=0)
    assert products.compare(one, 0.5) == len(FAMILIES)
    assert one.data["products"] == []


@pytest.mark.parametrize(
    ("capability", "algorithm"), [((7, 5), "ffma"), ((8, 0), "mma"), ((9, 0), "wgmma")]
)
def test_the_choice_of_products_that_are_measured(capability, algorithm):
    """Tensor cores wherever there are any, and the plan's own choice again afterwards."""
    plan = import_module("gpugrad.planning.choice")
    given = plan.fastest
    facts = replace(FACTS, compute_capability=capability)
    cache.keep("planned before", object())
    with products.on_tensor_cores():
        assert len(cache) == 0
        cache.keep("planned within", object())
        problem = Problem("matmul_backward", 256, 64, 64, "float32", ("w",))
        precisions = ("ieee", "highest", "high", "medium")
        taken = [plan.fastest(problem, one, facts) for one in precisions]
    expected = [0, 3, 2, 1] if capability >= (8, 0) else [0] * 4
    assert [one.planes for one in taken] == expected
    assert [one.algorithm for one in taken] == [algorithm if one else "ffma" for one in expected]
    assert plan.fastest is given
    assert len(cache) == 0


def test_accuracy_out_of_bounds_fails_the_run(gpu, monkeypatch):
    right = operations.call

    def wrong(op, operands, *, device):
        return {name: 1.01 * one for name, one in right(op, operands, device=device).items()}

    monkeypatch.setattr(operations, "call", wrong)
    monkeypatch.setattr(products, "FAMILIES", [])
    one = a_section(seconds=1.2)
    accuracy.work(one)
    assert "times its bound away" in one.failures[0]


def test_graphs(gpu):
    import cupy

    made, x = [], cupy.zeros(4, "f4")
    buffers = [cupy.empty_like(x) for _ in "ab"]

    def call(name, out):
        made.append(name)
        return cupy.add(x, 1, out=out)

    calls = [functools.partial(call, *pair) for pair in zip("ab", buffers, strict=True)]
    candidate, results = graphs.cupy_graph("one", calls)
    assert made == ["a", "a", "b"]  # a warm-up, then the capture
    assert all(one is buffer for one, buffer in zip(results, buffers, strict=True))
    assert candidate.operations == 2
    x.fill(2)
    candidate.call()
    assert made == ["a", "a", "b"]
    assert [one.get().tolist() for one in results] == [[3] * 4] * 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands(gpu, monkeypatch, dtype):
    monkeypatch.setattr(workload, "POOL", 4093)
    job = Workload("dense_sigmoid_backward", (9, 4, 5), dtype)
    sets = workload.draw(job, 3)
    shapes = operations.shapes(job.op, job.size)
    assert all({name: one[name].shape for name in one} == shapes for one in sets)
    assert all(one["x"].dtype.name == dtype for one in sets)
    assert not np.array_equal(sets[0]["x"], sets[1]["x"])
    wide = {name: wide_of(array) for name, array in sets[2].items()}
    sigmoid = 1 / (1 + np.exp(-wide["x"] @ wide["w"]))
    np.testing.assert_allclose(wide["y"], sigmoid, rtol=workload.TOLERANCES[dtype])
    np.testing.assert_array_equal(workload.widen(sets[0]["x"]).get(), wide_of(sets[0]["x"]))
    assert all(np.isnan(wide_of(one)).all() for one in workload.poisoned(job).values())


def wide_of(array):
    return array.get().astype(np.float64)


def test_a_large_operand_repeats_the_pool(gpu, monkeypatch):
    pool = np.arange(7, dtype="f4")
    spread = workload.spread(pool, (4, 5), 0)
    np.testing.assert_array_equal(spread.get().ravel(), np.resize(pool, 20))


def test_distance_does_not_pass_a_nan(gpu):
    import cupy

    right = cupy.ones(3)
    assert workload.distance({"a": right, "b": right}, {"a": right, "b": right}) == 0
    assert workload.distance({"a": 1.5 * right, "b": right}, {"a": right, "b": right}) == 0.5
    assert math.isnan(workload.distance({"a": right * np.nan}, {"a": right}))
    several = {"a": right * np.nan, "b": 9 * right}
    assert not workload.distance(several, {"a": right, "b": right}) <= 1


def test_kernels_are_built_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    assert kernels.build("reduce_splits", ("ELEMENT_F32", *REDUCTION.macros), "sm_90") > 0
    assert len(list(tmp_path.glob("reduce_splits-*.cubin"))) == 1
    assert set(kernels.LONGEST) == set(kernels.INSTANTIATIONS)


def test_first_calls(monkeypatch):
    caches = []

    def probe(cache, seconds):
        caches.append(cache.name)
        return {"first_call": 0.5 + len(caches), "second_call": 1.0}

    monkeypatch.setattr(first_call, "probe", probe)
    one = a_section(quick=False)
    first_call.work(one)
    assert caches == ["0", "1", "2", *["0"] * 5]
    assert one.data["cold"]["first_call"]["median"] == 2.5
    assert one.summary == "cold 2500 ms, warm 6500 ms"


# ---- tables


def test_table():
    rows = [("a", "b"), ("a long title",), ("cc", "1.5")]
    padded = [(*row, *[""] * (2 - len(row))) for row in rows]
    assert report.table(padded, right=(1,)) == "a     b\na long title\ncc  1.5"


@pytest.mark.parametrize(
    ("value", "says"),
    [(1.5, "1.50 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 us"), (3e-8, "0.03 us")],
)
def test_seconds(value, says):
    assert report.seconds(value) == says


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.5, "0.50"), (123.4, "123"), (99.96, "100"), (1e-5, "1e-05"), ("inf", "inf"), (0, "0")],
)
def test_numbers(value, says):
    assert report.short(value) == says


def test_the_whole_report():
    document = {
        "date": "2026-03-01T10:00:00+00:00",
        "source": {"version": "0.1", "commit": "0" * 40, "dirty": True, "sources": "abc"},
        "environment": {
            "device": {"name": "NVIDIA H200"},
            "driver": "580.1",
            "cuda": {"driver": "13.0", "nvrtc": "13.0"},
            "versions": {"cupy": "14.2.0", "torch": None},
        },
        "sections": [
            {"name": "tests", "status": "failed", "seconds": 5.0, "summary": "1 failed"}
            | {"failures": ["test_a: 1 != 2"] * 20, "data": {}, "not_run": ""},
            {"name": "timings", "status": "over", "seconds": 1.0, "summary": "", "failures": []}
            | {"data": {}, "not_run": "no time for 3 rows"},
        ],
        "skipped": ["host"],
    }
    text = report.render(document)
    assert text.startswith("gpugrad 0.1, 000000000000 (changed), sources abc, 2026-03-01")
    assert "NVIDIA H200, driver 580.1, CUDA 13.0, NVRTC 13.0, cupy 14.2.0\n" in text
    assert "tests    failed      5.0  1 failed" in text
    assert "\n\nnot run:\ntimings: no time for 3 rows\nhost: skipped\n\nfailed:\n" in text
    assert text.endswith("tests: test_a: 1 != 2\nand 8 more")
    text.encode("ascii")
