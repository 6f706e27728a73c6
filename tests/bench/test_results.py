"""What is measured on a CPU, the tables made of results, and that those in documents are new."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import bounds, command, measured, on_cpu, section
from gpugrad.benchmark.sizes import PRESETS
from gpugrad.operations import OPERATIONS

ROOT = Path(__file__).parents[2]


def a_result(what="gpugrad CPU", size=(64, 64, 64), dtype="float32", time=1e-3, **changes):
    n, k, m = size
    found = {"n": n, "k": k, "m": m, "dtype": dtype, "what": what, "seconds": time}
    if what == "gpugrad CPU":
        found |= {"error": 2e-7, "ratios": {"NumPy": {"ratio": 2.0}}}
    return found | changes


def a_cpu_document(**changes):
    def run(ratio):
        ours = a_result(ratios={"NumPy": {"ratio": ratio}, "JAX": {"ratio": 0.5}})
        return [ours, a_result("NumPy"), a_result("JAX"), a_result(dtype="float64", time=2e-6)]

    grid = [
        a_result(size=size, ratios={"NumPy": {"ratio": ratio}})
        for size, ratio in (((1, 8, 9), 0.5), ((4, 8, 9), 2.0), ((1, 5, 6), 4.0), ((4, 5, 6), 4.0))
    ]
    document = {
        "format": 1,
        "kind": "cpu",
        "date": "2026-03-01T10:00:00+00:00",
        "quick": False,
        "source": {"version": "0.1", "commit": "0123456789abcdef", "dirty": False, "sources": "a"},
        "environment": {
            "processor": "A processor",
            "cores": 2,
            "gpu": None,
            "gpugrad": {"threads": 2},
            "peers": {"NumPy": {"version": "2.4", "blas": "openblas 0.3", "threads": 2}},
        },
        "runs": [run(1.5), run(3.0), run(2.0)],
        "grid": grid,
        "bounds": [a_bound()],
    }
    return document | changes


def a_bound():
    times = (5e-3, 4e-3, 2e-3, 1e-3, 5e-4, 6e-6)
    seconds = {part: {"median": time} for part, time in zip(bounds.PARTS, times, strict=True)}
    return {"n": 64, "k": 64, "m": 64, "dtype": "float32", "seconds": seconds}


def a_gpu_document(**changes):
    ratios = {"CuPy": {"median": 1.25, "low": 1.2, "high": 1.3}}
    times = {"device": {"median": 1e-3}, "host": {"median": 2e-5}, "ratios": ratios}
    rows = [
        {
            "op": op,
            "size": [8192, 4096, 4096],
            "dtype": "float32",
            "ours": {"highest": times | {"of_copy": 0.5}, "graph": {"error": 1.0}},
            "peers": {"CuPy": {}},
        }
        for op in ("dense_sigmoid_backward", "sigmoid")
    ]
    document = {
        "format": 1,
        "date": "2026-03-01T10:00:00+00:00",
        "quick": False,
        "source": {"version": "0.1", "commit": None, "dirty": True, "sources": "fedcba9876543210"},
        "environment": {
            "device": {"name": "NVIDIA H200"},
            "driver": "580.1",
            "versions": {"cupy": "14.2.0", "torch": None},
        },
        "sections": [{"name": "timings", "data": {"rows": rows}}],
    }
    return document | changes


def a_training_step_document(**changes):
    spread = {"low": 1.5, "high": 2.25, "count": 9}
    step = {
        **dict(zip(("n", "k", "m", "dtype"), (200_000, 128, 128, "float32"), strict=True)),
        "seconds": {"gpugrad": spread | {"median": 0.25}, "PyTorch": spread | {"median": 0.5}},
        "ratio": spread | {"median": 2.0},
    }
    memory = {name: step[name] for name in ("n", "k", "m", "dtype")}
    document = {
        **{name: a_cpu_document()[name] for name in ("format", "date", "quick", "source")},
        "kind": "training-step",
        "environment": a_cpu_document()["environment"],
        "steps": [step],
        "memory": memory | {"bytes": {"gpugrad": 200_000_000, "PyTorch": 300_000_000}},
    }
    return document | changes


def a_host_cost_document(**changes):
    medians = {"planned anew": 1e-4, "repeated": 9e-6, "repeated, out=": 8e-6}
    times = {kind: {"median": time, "low": 0, "high": 0} for kind, time in medians.items()}
    row = {"op": "sigmoid", "n": 64, "k": 64, "m": 64, "dtype": "float32", "seconds": times}
    document = a_cpu_document(kind="host-cost", gpu="a GPU", rows=[row])
    return document | changes


# ---- the documents


NAMES = list(dict.fromkeys(place.document for place in measured.PLACES))


def test_the_documents_have_the_tables_of_the_results():
    assert measured.stale() == [], "python -m bench.measured --update writes them anew"


def a_tree(tmp_path, *documents):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        begins = [place.begin for place in measured.PLACES if place.document == name]
        places = "between\n".join(f"{begin}\nold\n{measured.END}\n" for begin in begins)
        path.write_text(f"before\n{places}after\n")
    folder = tmp_path / "bench" / "results"
    folder.mkdir(parents=True)
    for index, document in enumerate(documents):
        (folder / f"{index}.json").write_text(json.dumps(document))
    return tmp_path


def test_stale_documents_are_found_and_written_anew(tmp_path, monkeypatch, capsys):
    root = a_tree(tmp_path, a_cpu_document(), a_gpu_document(), a_training_step_document())
    assert measured.stale(root) == NAMES
    measured.update(root)
    assert measured.stale(root) == []
    text = (root / "README.md").read_text()
    assert text.startswith(f"before\n{measured.BEGIN}\n")
    assert text.endswith(f"\n{measured.END}\nafter\n")
    result = root / "bench" / "results" / "0.json"
    result.write_text(result.read_text().replace("0.5", "0.25"))
    assert measured.stale(root) == NAMES


def test_each_table_of_a_document_may_be_the_stale_one(tmp_path):
    root = a_tree(tmp_path, a_cpu_document(), a_training_step_document(), a_host_cost_document())
    measured.update(root)
    text = (root / "docs" / "performance.md").read_text()
    assert text.count(measured.END) == 3
    assert "old" not in text
    assert "\nbetween\n" in text
    steps = root / "bench" / "results" / "1.json"
    steps.write_text(steps.read_text().replace("300000000", "400000000"))
    assert measured.stale(root) == ["docs/performance.md"]
    measured.update(root)
    assert measured.stale(root) == []
    costs = root / "bench" / "results" / "2.json"
    costs.write_text(costs.read_text().replace("9e-06", "7e-06"))
    assert measured.stale(root) == ["docs/performance.md"]


def test_the_command_tells_what_is_stale(monkeypatch, capsys):
    monkeypatch.setattr(measured, "stale", lambda: ["README.md"])
    assert measured.main([]) == 1
    assert "README.md is stale" in capsys.readouterr().out
    monkeypatch.setattr(measured, "stale", list)
    assert measured.main([]) == 0


@pytest.mark.parametrize("begin", [measured.BEGIN, measured.BEGIN_HOST, measured.BEGIN_STEPS])
def test_a_document_without_the_markers_is_an_error(begin):
    with pytest.raises(ValueError, match="no place"):
        measured.placed("some text", "x", begin)


def test_without_results_nothing_is_claimed(tmp_path):
    root = a_tree(tmp_path)
    found = measured.documents(root / "bench" / "results")
    assert found == {kind: [] for kind in measured.KINDS}
    for place in measured.PLACES:
        text = place.write(*(found[kind] for kind in place.kinds))
        assert "No result" in text
        assert "×" not in text


def test_the_latest_result_of_a_device_counts_and_trials_do_not(tmp_path):
    old, new = (a_cpu_document(date=f"2026-0{month}-01T10:00:00+00:00") for month in (3, 4))
    trial = a_cpu_document(quick=True, date="2026-05-01T10:00:00+00:00")
    other = {"machine_info": {}, "benchmarks": []}  # pytest-benchmark's
    steps = a_training_step_document(date="2026-02-01T10:00:00+00:00")
    trials = [trial, a_gpu_document(quick=True), a_training_step_document(quick=True)]
    costs = a_host_cost_document()
    root = a_tree(tmp_path, new, old, other, a_gpu_document(), steps, costs, *trials)
    found = measured.documents(root / "bench" / "results")
    expected = {"cpu": [new], "gpu": [a_gpu_document()], "training-step": [steps]}
    assert found == {**expected, "host-cost": [costs]}


def test_a_cpus_tables():
    text = measured.performance([a_cpu_document()], [])
    layer = "| 64 × 64 × 64 (tiny) | float32 | 1.00 ms | 2.00 × (1.50–3.00) | 0.50 × (0.50–0.50) |"
    assert f"{layer} 2.0e-7 |" in text
    assert "| layer | dtype | gpugrad | NumPy | JAX | error |" in text
    assert "2.00 µs" in text
    told = " ".join(text.split())
    assert "A processor, 2 cores" in told
    assert "2026-03-01, commit 0123456789ab: gpugrad on 2 threads, NumPy 2.4 (openblas 0.3" in told
    assert "Over 4 shapes in float32 NumPy takes 2.00 times as long" in told
    assert "from 0.50 to 4.00; less than gpugrad at 1 of them" in told
    assert "| rows | 8 × 9 | 5 × 6 |" in text
    assert "| 1 | 0.50 × | 4.00 × |" in text
    assert "| layer | dtype | gpugrad | gpugrad, out= | products in cache | whole prod" in text
    row = (
        "| 64 × 64 × 64 (tiny) | float32 | 5.00 ms | 4.00 ms | 2.00 ms | 1.00 ms | 500 µs | 6.00 µs"
    )
    assert f"{row} | 25 % |" in text
    assert "out=" not in measured.performance([a_cpu_document(bounds=[])], [])
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 100
    short = measured.readme([a_cpu_document()], [])
    assert "| 64 × 64 × 64 (tiny) | float32 | 1.00 ms | 2.00 × | 0.50 × |" in short
    assert "float64" not in short


def test_a_gpus_table():
    text = measured.performance([], [a_gpu_document()])
    layer = "8\u00a0192 × 4\u00a0096 × 4\u00a0096 | float32 highest | 1.00 ms | 20.0 µs | 50 %"
    assert f"| `sigmoid` | {layer} | 1.25 × |" in text
    assert "graph" not in text
    assert "**On a GPU: NVIDIA H200.**" in text
    assert "commit sources fedc, with changes" in " ".join(text.split())
    short = measured.readme([], [a_gpu_document()])
    assert "sigmoid" not in short.replace("dense_sigmoid_backward", "")
    assert f"| {layer} | 1.25 × |" in short


def test_table_of_costs_on_the_host():
    text = measured.host_costs([a_host_cost_document()])
    assert "| `sigmoid` | 64 × 64 × 64 (tiny) | 100 µs | 9.00 µs | 8.00 µs |" in text
    assert "| operation | layer | planned anew | repeated | repeated, out= |" in text
    assert "A processor, 2 cores, a GPU" in " ".join(text.split())


def test_training_steps_table():
    text = measured.training_steps([a_training_step_document()])
    step = "| 200\u00a0000 × 128 × 128 (tall) | float32 | 250 ms | 500 ms | 2.00 × (1.50–2.25) |"
    assert "| layer | dtype | gpugrad | PyTorch | PyTorch / gpugrad |" in text
    assert step in text
    told = " ".join(text.split())
    assert "Training steps on a CPU: A processor, 2 cores" in told
    assert "2026-03-01, commit 0123456789ab: gpugrad on 2 threads" in told
    assert "takes 200 MB of memory beyond operands and parameters" in told
    assert "that of PyTorch 300 MB, 1.50 times as much" in told
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 100


# ---- what is measured on a CPU


@pytest.mark.slow
def test_a_trial_on_the_cpu_is_written_whole(tmp_path, capsys):
    assert on_cpu.main(["--quick", "--output", str(tmp_path), "--commit", "abc"]) == 0
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"cpu-[a-z0-9-]+-quick\.json", path.name)
    assert capsys.readouterr().out == f"{path}\n"
    document = json.loads(path.read_text())
    scope = on_cpu.QUICK
    assert len(document["runs"]) == scope.runs
    for run in document["runs"]:
        assert {(one["preset"], one["dtype"]) for one in run} == {
            (layer, dtype) for layer in scope.layers for dtype in scope.dtypes
        }
        assert {"gpugrad CPU", "NumPy"} <= {one["what"] for one in run}
    assert [
        (o["n"], o["k"], o["m"]) for o in document["grid"] if o["what"] == "NumPy"
    ] == scope.grid
    found = [(*(one[extent] for extent in "nkm"), one["dtype"]) for one in document["bounds"]]
    assert found == [(*PRESETS[name], dtype) for dtype in scope.dtypes for name in scope.layers]
    for one in document["bounds"]:
        assert list(one["seconds"]) == list(bounds.PARTS)
        assert all(times["median"] > 0 for times in one["seconds"].values())
    text = measured.performance([document], [])
    assert f"Over {len(scope.grid)} shapes" in " ".join(text.split())


def test_the_products_of_the_bounds():
    rng = np.random.default_rng(0)
    dy, x, w = (rng.random(shape) for shape in ((5000, 16), (5000, 24), (24, 16)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    bounds.whole_products(dy, x, w, dx, dw)
    np.testing.assert_allclose(dx, dy @ w.T)
    np.testing.assert_allclose(dw, x.T @ dy)


def test_the_products_in_cache_are_of_as_many_rows(monkeypatch):
    found = []
    monkeypatch.setattr(bounds, "whole_products", lambda dy, x, *_: found.append((len(dy), len(x))))
    bounds.products_in_cache(np.ones((5000, 16)), np.ones((5000, 24)), np.ones((24, 16)))()
    assert sum(rows for rows, _ in found) == sum(rows for _, rows in found) == 5000
    assert len(found) > 1


def test_the_traffic_of_the_bounds_writes_every_row():
    sources = [np.full((5000, 24), value) for value in (1.0, 2.0, 3.0)]
    target = np.zeros((5000, 24))
    bounds.traffic(sources, target)
    assert (target == 3).all()
    bounds.new_pages(target)


def test_the_layers_that_count_are_measured():
    assert len(on_cpu.WHOLE.grid) == len(set(on_cpu.WHOLE.grid)) == 30
    assert on_cpu.WHOLE.runs >= 3
    assert {"float32", "float64", "bfloat16"} <= set(on_cpu.WHOLE.dtypes)


def test_a_run_that_fails_leaves_what_was_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "kept.json").write_text("kept")
    monkeypatch.setattr(on_cpu, "OP", "relu")
    monkeypatch.setattr(command, "file_name", lambda kind, quick: "kept.json")
    assert on_cpu.main(["--quick", "--output", str(tmp_path)]) == 1
    assert "'relu'" in capsys.readouterr().err.splitlines()[-1]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_runs_that_take_too_long_are_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(section, "wait", lambda *_: None)
    assert on_cpu.main(["--quick", "--output", str(tmp_path)]) == 1
    assert "longer than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(on_cpu, "run", lambda *_: pytest.fail("measuring had begun"))
    assert on_cpu.main(["--output", str(tmp_path / "file" / "results")]) == 2
    assert "--output" in capsys.readouterr().err


# ---- benchmarks


@pytest.mark.slow
def test_benchmarks_run(tmp_path):
    """Once each, without timing; and for one of them with it, and the result kept."""

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        own = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        done = subprocess.run(
            command, cwd=ROOT, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    chosen = "(tiny or 2053x64x10) and (numpy or gpugrad)"
    told = run("bench", "-k", chosen, "--benchmark-disable")
    assert int(re.findall(r"(\d+) passed", told)[0]) >= 2 * 2 * 2 * len(OPERATIONS)
    quickly = ["--benchmark-min-rounds=1", "--benchmark-max-time=0.01"]
    kept = tmp_path / "kept.json"
    one = "bench/bench_operations.py::test_operation[sigmoid-tiny-float32-numpy]"
    run(one, *quickly, f"--benchmark-json={kept}")
    document = json.loads(kept.read_text())
    (one,) = document["benchmarks"]
    assert one["extra_info"] == {"op": "sigmoid", "layer": [64, 64, 64], "dtype": "float32"}
    assert one["stats"]["median"] > 0
    assert "NumPy" in document["machine_info"]["gpugrad"]["peers"]
    assert "id" in document["commit_info"]
