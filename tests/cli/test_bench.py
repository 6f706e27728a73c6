"""gpugrad bench: what it measures, refuses and keeps."""

import json

import numpy as np
import pytest

from gpugrad._operations import OPERATIONS
from gpugrad.cli import bench, main, operations
from tests.cli.commands import (
    QUICK,
    WAYS,
    WAYS_ON_A_GPU,
    expect_one_line,
)
from tests.conftest import ON_A_GPU


def test_bench_measures_each_case(capsys):
    arguments = ["--size", "64,8,16", "--size", "3,5,7", "--dtype", "float32", "--dtype", "float16"]
    assert main(["bench", *arguments, "--repeat", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["interrupted"]
    results = document["results"]
    ways = WAYS | WAYS_ON_A_GPU if ON_A_GPU else WAYS
    assert {one["what"] for one in results} == ways
    assert len(results) == len(OPERATIONS) * 2 * 2 * len(ways)
    for one in results:
        low, high = one["quartiles"]
        assert 0 < low <= one["seconds"] <= high
        assert one["samples"] == 2
        if one["what"] == "NumPy":
            assert one["speedup"] == 1
    whole = next(one for one in results if one["op"] == "dense_sigmoid_backward")
    assert whole["flops"] == 2 * 2 * 64 * 8 * 16
    assert whole["bytes"] == 4 * (2 * 64 * 16 + 64 * 8 + 8 * 16 + 64 * 8 + 8 * 16 + 16)


@pytest.mark.parametrize("op", OPERATIONS)
def test_plain_expressions_compute_the_same(op):
    operands = operations.arrays(op, (31, 7, 5), np.dtype("float64"), seed=0)
    ours = operations.call(op, operands, device="cpu")
    theirs = operations.plain(op, np, operands)
    for name, result in ours.items():
        np.testing.assert_allclose(result, theirs[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", ["1000000,1000000,1000000", "1,1," + "9" * 17])
@pytest.mark.parametrize("op", OPERATIONS)
def test_bench_refuses_what_does_not_fit(op, size, capsys):
    assert main(["bench", "--op", op, "--size", "3,3,3", "--size", size]) == 2
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, f"{op} at {size}", "B of memory", "has")


def test_bench_fails_where_a_result_is_wrong(capsys, monkeypatch):
    call = operations.call

    def wrong(op, operands, *, device):
        results = call(op, operands, device=device)
        results["dw"][-1, -1] += 1
        return results

    monkeypatch.setattr(operations, "call", wrong)
    assert main(QUICK["bench"]) == 1
    expect_one_line(capsys.readouterr().err, "matmul_backward is wrong in float32", "dw is")


@pytest.mark.parametrize("form", ["table", "json"])
def test_bench_prints_what_was_measured_before_ctrl_c(form, capsys, monkeypatch):
    measure = bench._measure

    def interrupted(case, *rest):
        if case[0] == "bias_backward":
            raise KeyboardInterrupt
        measure(case, *rest)

    monkeypatch.setattr(bench, "_measure", interrupted)
    arguments = ["--op", "sigmoid", "--op", "bias_backward", "--size", "3,3,3", "--repeat", "2"]
    assert main(["bench", *arguments, *(["--json"] if form == "json" else [])]) == 130
    out, err = capsys.readouterr()
    expect_one_line(err, "interrupted")
    if form == "json":
        document = json.loads(out)
        assert document["interrupted"]
        assert {one["op"] for one in document["results"]} == {"sigmoid"}
    else:
        assert "sigmoid float32 3 × 3 × 3" in out
        assert "bias_backward" not in out
