"""The commands on a GPU, whose kernels are emulated."""

import json

import pytest

from gpugrad._operations import OPERATIONS
from gpugrad.cli import check, digits, machine, main
from tests.cli.commands import (
    WAYS,
    WAYS_ON_A_GPU,
    expect_one_line,
)


def test_info_describes_the_gpu(emulated_gpu, capsys):
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "emulator, compute capability 9.0, 132 multiprocessors, 151 GB at 4.80 TB/s" in out
    assert "predicted" in out


def test_check_on_a_gpu(emulated_gpu, capsys, monkeypatch):
    monkeypatch.setattr(check, "SIZES", ((0, 5, 7), (5, 3, 4)))
    assert main(["check", "--dtype", "float32", "--device", "gpu"]) == 0
    assert f"{len(OPERATIONS)} of" in capsys.readouterr().out
    assert main(["check", "--op", "sigmoid", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one["device"] for one in results[:2]] == ["cpu", "gpu"]


def test_bench_on_a_gpu(emulated_gpu, capsys):
    arguments = ["--size", "5,3,4", "--repeat", "1", "--against", "numpy,cupy"]
    assert main(["bench", *arguments, "--json"]) == 0
    results = {one["what"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert set(results) == WAYS | WAYS_ON_A_GPU
    for name, moved in (("copy to GPU", 4 * (2 * 20 + 15 + 12)), ("copy back", 4 * (15 + 12 + 4))):
        assert results[name]["bytes"] == moved
        assert "error" not in results[name]
    assert results["gpugrad GPU"]["ratios"].keys() == {"NumPy", "CuPy"}
    assert main(["bench", *arguments]) == 0
    assert "CPU ×" in capsys.readouterr().out


def test_precisions_on_a_gpu(emulated_gpu, capsys):
    arguments = ["--size", "5,3,4", "--repeat", "1", "--against", "numpy", "--device", "gpu"]
    precisions = ["--precision", "medium", "--precision", "ieee"]
    assert main(["bench", *arguments, *precisions, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    ours = [one["precision"] for one in found if one["role"] == "gpugrad"]
    assert ours == ["medium", "ieee"]


def test_bench_refuses_what_the_gpu_cannot_hold(emulated_gpu, capsys, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert main(["bench", "--op", "sigmoid", "--size", "1000000,1,1000000"]) == 2
    expect_one_line(capsys.readouterr().err, "the GPU has 151 GB")


def test_demo_on_a_gpu(emulated_gpu, capsys, monkeypatch):
    parts = [digits.Digits(one.x[:8], one.labels[:8]) for one in digits.load(0)]
    monkeypatch.setattr(digits, "load", lambda seed: parts)
    curves = []
    for device in ("gpu", "cpu"):
        assert main(["demo", "--epochs", "1", "--device", device, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["device"] == device
        assert 0 < result["gradient_seconds"] < result["seconds"]
        curves.append(result["curve"])
    assert curves[0][0]["loss"] == pytest.approx(curves[1][0]["loss"], rel=1e-5)
