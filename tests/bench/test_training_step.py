"""`python -m bench.training_step`: what it measures, and how it ends where it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import command, environment, measured, section, training_step
from bench.training_step import MODULES, QUICK, WHOLE, Case
from gpugrad import host
from gpugrad.benchmark.peers import Peer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.fixture
def with_pytorch(monkeypatch):
    """It counts as installed, for what is done before it is used."""
    monkeypatch.setattr(Peer, "missing", lambda self: None)
    monkeypatch.setattr(training_step, "start", lambda **options: {"steps": [], **options})


def test_a_trial_is_written_whole(torch, tmp_path, capsys):
    path = tmp_path / "steps.json"
    assert training_step.main(["--quick", "--output", str(path), "--commit", "abc"]) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["steps.json"]
    document = json.loads(path.read_text())
    assert document["kind"] == "training-step"
    assert document["quick"]
    assert "PyTorch" in document["environment"]["peers"]
    assert [Case(*(one[name] for name in Case._fields)) for one in document["steps"]] == list(
        QUICK.cases
    )
    for one in document["steps"]:
        assert set(one["seconds"]) == set(MODULES)
        assert all(0 < times["low"] <= times["median"] for times in one["seconds"].values())
        assert one["ratio"]["count"] == QUICK.budget.rounds
    # Beyond its operands a step has at least to have y and dx, both of n × k = n × m float32.
    n, k, m, _ = QUICK.memory
    for count in document["memory"]["bytes"].values():
        assert 0.9 * 4 * n * (k + m) < count < 4 * 4 * n * (k + m)
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}\n")
    assert "64 × 64 × 64" in out
    assert "memory" in err
    assert "| 64 × 64 × 64 (tiny) | float32 |" in measured.training_steps([document])


@pytest.mark.parametrize(("dtype", "roundoff"), [("float64", 2.0**-53), ("float32", 2.0**-24)])
def test_both_modules_compute_the_same_gradients(torch, dtype, roundoff):
    """Both sum up to 40 terms, each with 8 roundings of y and dz, and with those of the logits.

    These are sums of 8 terms, and err by 9 roundings of Σ |x w| + |b|, where |w|, |b| < 1.
    """
    case = Case(40, 7, 5, dtype)
    x, dy = training_step.operands(case)
    found = []
    for name in MODULES:
        step = training_step.Step(name, x, dy)
        step()
        step()  # gradients are not added up
        found.append([leaf.grad.double() for leaf in step.leaves])
    size = x.detach().abs()
    terms = case.n * (1 + size.max()) * dy.abs().max() / 4  # all together, at most
    roundings = case.n + 8 + 9 * (1 + size.sum(1).max())
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 2 * roundings * roundoff * terms


def test_kernels_of_an_older_processor_are_told(monkeypatch, capsys):
    for hint, expected in (("try another one", "hint: try another one\n"), (None, "")):
        monkeypatch.setattr(host, "blas_hint", lambda used, hint=hint: hint)
        environment.tell_of_slow_kernels()
        assert capsys.readouterr().err == expected


def test_the_layers_that_count_are_measured():
    sizes = [case[:3] for case in WHOLE.cases]
    assert {(64, 64, 64), (200_000, 128, 128)} <= set(sizes)
    assert [case.dtype for case in WHOLE.cases].count("bfloat16") == 2
    assert WHOLE.memory[:3] == (200_000, 128, 128)
    assert len(WHOLE.cases) * WHOLE.budget.seconds < 180


def test_the_name_tells_the_processor(monkeypatch):
    monkeypatch.setattr(host, "processor", lambda: "A Processor (R) 9")
    name = command.file_name(training_step.KIND, quick=False)
    assert name == "training-step-a-processor-r-9.json"
    assert command.file_name("cpu", quick=True).endswith("-quick.json")


def test_without_pytorch_it_says_so(tmp_path):
    """In a process of its own, to which a package that cannot be imported hides PyTorch."""
    (tmp_path / "torch.py").write_text("raise ImportError('it is hidden')\n")
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, str(tmp_path), str(tmp_path / "steps.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("bench.training_step: PyTorch")
    assert "pip install torch" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == []


HIDDEN = """
import sys
sys.path.insert(0, sys.argv[1])
from bench import training_step
sys.exit(training_step.main(["--quick", "--output", sys.argv[2]]))
"""


def test_a_file_that_cannot_be_written_is_found_before_the_work(
    with_pytorch, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(training_step, "run_all", lambda *_: pytest.fail("measuring had begun"))
    assert training_step.main(["--output", str(tmp_path / "nowhere" / "steps.json")]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "says"), [(None, "took longer than 120 s"), (3, "failed: no")])
def test_a_process_that_fails_leaves_what_was_there(
    with_pytorch, tmp_path, capsys, monkeypatch, code, says
):
    path = tmp_path / "steps.json"
    path.write_text("kept")
    monkeypatch.setattr(section, "wait", lambda *_: code)
    assert training_step.main(["--quick", "--output", str(path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert says in last
    assert last.endswith("; nothing was written")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["kept"]


def test_ctrl_c_writes_nothing(with_pytorch, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_step, "run_all", interrupted)
    assert training_step.main(["--output", str(tmp_path / "steps.json")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_argument(capsys):
    with pytest.raises(SystemExit) as caught:
        training_step.main(["--memory-of", "JAX"])
    assert caught.value.code == 2
