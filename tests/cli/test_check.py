"""gpugrad check: right results pass, wrong ones fail."""

import json

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.cli import check, main
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from tests.cli.commands import (
    DEVICES,
    QUICK,
)


@pytest.mark.slow
@pytest.mark.gpu
def test_check_covers_every_operation_and_dtype(capsys):
    assert main(["check", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    seen = {(one["op"], one["dtype"], one["device"]) for one in document["results"]}
    dtypes = ("float64", "float32", "float16", "bfloat16")
    ops = OPERATIONS
    assert seen == {(op, dtype, device) for op in ops for dtype in dtypes for device in DEVICES}
    for one in document["results"]:
        assert 0 < one["ratio"] <= 1
        assert one["error"] == pytest.approx(one["ratio"] * one["bound"])


@pytest.mark.gpu
def test_check_fails_where_a_result_is_wrong(capsys, monkeypatch):
    call = operations.call

    def slightly_wrong(op, operands, *, device):
        results = call(op, operands, device=device)
        if "dw" in results and results["dw"].size > 1:
            results["dw"][-1, -1] *= np.float32(1.1)
        return results

    monkeypatch.setattr(operations, "call", slightly_wrong)
    arguments = ["check", "--op", "matmul_backward", "--op", "sigmoid", "--dtype", "float32"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "dw at n = " in out
    assert f"{len(DEVICES)} of {2 * len(DEVICES)} within their bounds" in out
    assert main([*arguments, "--json"]) == 1
    wrong, right = json.loads(capsys.readouterr().out)["results"][:: len(DEVICES)]
    assert (wrong["ok"], right["ok"]) == (False, True)
    assert wrong["ratio"] > 1


@pytest.mark.parametrize("damage", ["nan", "shape"])
def test_check_fails_where_a_result_is_no_number_or_the_wrong_shape(damage, capsys, monkeypatch):
    def wrong(op, operands, *, device):
        z = operands["z"]
        return {"y": np.full_like(z, np.nan) if damage == "nan" else np.zeros(3, z.dtype)}

    monkeypatch.setattr(operations, "call", wrong)
    assert main([*QUICK["check"], "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert main(QUICK["check"]) == 1


def test_check_reports_a_device_that_fails(capsys, monkeypatch):
    def broken() -> None:
        raise RuntimeError("the device has fallen off the bus")

    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(dispatch, "runtime", broken)
    assert main(QUICK["check"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "sigmoid float32 gpu: RuntimeError: the device has fallen off the bus" in out
    assert "1 of 2 within their bounds" in out


def test_check_saturates(capsys):
    assert max(check.SPREADS.values()) > 20
    z = operations.random_operands(
        "sigmoid", (64, 1, 64), np.dtype("float32"), seed=0, spread=40.0
    )["z"]
    y = gpugrad.sigmoid(z, device="cpu")
    assert np.mean(y == 1) > 0.2
