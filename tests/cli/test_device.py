"""The commands on a GPU."""

import json
import sys

import pytest

from gpugrad import dispatch
from gpugrad.benchmark import environment, load, timer
from gpugrad.benchmark.peers import cupy_cublas
from gpugrad.cli import check, digits, main
from gpugrad.operations import OPERATIONS
from tests.cli.commands import TIMED, TIMED_ON_A_GPU, expect_one_line
from tests.conftest import ON_A_GPU


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    """Single calls, without rests: launches return at once, and are emulated when waited for."""
    monkeypatch.setattr(load, "IDLE_SECONDS", 0.0)
    for name in ("REST_SECONDS", "WARM_SECONDS", "SAMPLE_SECONDS"):
        monkeypatch.setattr(timer, name, 0.0)


def test_info_describes_the_gpu(gpu, capsys):
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    facts = dispatch.runtime().facts(None)
    major, minor = facts.compute_capability
    assert f"{facts.name}, compute capability {major}.{minor}, {facts.sm_count} multi" in out
    if not ON_A_GPU:
        assert "NVIDIA H200 (played), compute capability 9.0" in out
        assert "132 multiprocessors, 151 GB at 4.92 TB/s" in out
    assert "predicted" in out


def test_check_on_a_gpu(gpu, capsys, monkeypatch):
    monkeypatch.setattr(check, "SIZES", ((0, 5, 7), (5, 3, 4)))
    assert main(["check", "--dtype", "float32", "--device", "gpu"]) == 0
    assert f"{len(OPERATIONS)} of" in capsys.readouterr().out
    assert main(["check", "--op", "sigmoid", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one["device"] for one in results[:2]] == ["cpu", "gpu"]


def test_bench_on_a_gpu(gpu, capsys):
    op = ["--op", "sigmoid_bias_backward"]  # which CuPy computes without cuBLAS
    arguments = [*op, "--size", "5,3,4", "--repeat", "1", "--against", "numpy,cupy"]
    assert main(["bench", *arguments, "--json"]) == 0
    results = {one["what"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert set(results) == TIMED | TIMED_ON_A_GPU
    for name, moved in (("copy to GPU", 4 * 2 * 20), ("copy back", 4 * (20 + 4))):
        assert results[name]["bytes"] == moved
        assert "error" not in results[name]
    assert results["gpugrad GPU"]["ratios"].keys() == {"NumPy", "CuPy"}
    assert results["CuPy"]["error"] < 1e-6
    assert main(["bench", *arguments]) == 0
    assert "CPU ×" in capsys.readouterr().out


def test_cupy_without_cublas(gpu, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy.cublas", None)
    cupy_cublas.no_cublas.cache_clear()
    arguments = ["--size", "5,3,4", "--repeat", "1", "--against", "cupy", "--device", "gpu"]
    assert main(["bench", *arguments]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "CuPy was left out: ImportError: CuPy finds no cuBLAS; pip install 'cupy-cuda" in out
    assert "gpugrad GPU" in out
    cupy_cublas.no_cublas.cache_clear()


def test_precisions_on_a_gpu(gpu, capsys):
    arguments = ["--size", "5,3,4", "--repeat", "1", "--against", "numpy", "--device", "gpu"]
    precisions = ["--precision", "medium", "--precision", "ieee"]
    assert main(["bench", *arguments, *precisions, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    ours = [one["precision"] for one in found if one["role"] == "gpugrad"]
    assert ours == ["medium", "ieee"]


def test_bench_refuses_what_the_gpu_cannot_hold(gpu, capsys, monkeypatch):
    monkeypatch.setattr(environment, "free_memory", lambda: None)
    assert main(["bench", "--op", "sigmoid", "--size", "1000000,1,1000000"]) == 2
    memory = dispatch.runtime().facts(None).memory
    expect_one_line(capsys.readouterr().err, f"the GPU has {1e-9 * memory:.0f} GB")


@pytest.mark.slow
def test_demo_on_a_gpu(gpu, capsys, monkeypatch):
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
