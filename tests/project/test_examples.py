"""The scripts of examples/: what they print and draw, and how they end where they cannot."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import DEVICES, environment
from tests.cli.test_demo import expect_png

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
FLOOR = 0.95  # of unseen digits; the least of 30 seeds was 0.96, of NumPy's network and PyTorch's

needs_pytorch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch"
)


def run(script, *arguments, folder, **variables):
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py"), *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def succeed(script, *arguments, folder):
    code, out, err = run(script, *arguments, folder=folder)
    assert (code, err) == (0, "")
    return out


def expect_one_line(text, *parts):
    assert text.count("\n") == 1
    assert text.endswith("\n")
    for part in parts:
        assert part in text


@pytest.fixture
def load(monkeypatch):
    """Return an example as a module, run with the arguments that follow."""

    def load(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        spec = importlib.util.spec_from_file_location(script, FOLDER / f"{script}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def accuracies(text):
    return [float(one) / 100 for one in re.findall(r"([\d.]+)% (?:of the unseen|by)", text)]


# ---- what they show


@needs_pytorch
def test_digits_torch(tmp_path):
    """The network of nn.Linear and nn.Sigmoid has to read as well, by its own functions."""
    out = succeed("digits_torch", "--check", "--save-logits", folder=tmp_path)
    assert "SigmoidLinear(in_features=64, out_features=10, bias=True, save_logits=True)" in out
    ours, theirs = accuracies(out)
    assert min(ours, theirs) >= FLOOR
    difference = float(re.search(r"largest difference of a weight: (\S+)", out)[1])
    assert 0 < difference <= 1e-3
    assert list(tmp_path.iterdir()) == []


@needs_pytorch
def test_digits_torch_by_pytorchs_own_functions(tmp_path):
    """As layers this small are: the same bits."""
    out = succeed("digits_torch", "--check", "--epochs", "2", "--seed", "1", folder=tmp_path)
    assert "SigmoidLinear(in_features=64, out_features=10, bias=True)" in out
    ours, theirs = accuracies(out)
    assert ours == theirs
    assert out.endswith("largest difference of a weight: 0.0e+00\n")


@pytest.mark.parametrize("device", DEVICES)
def test_digits_numpy(tmp_path, device):
    out = succeed("digits_numpy", "--device", device, folder=tmp_path)
    arrays = {"cpu": "numpy", "gpu": "cupy"}[device]
    assert f"by {arrays}, batches of 32 in parts of 16" in out
    (accuracy,) = accuracies(out)
    assert accuracy >= FLOOR
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_digits_numpy_does_not_depend_on_a_lucky_seed(load, seed):
    module = load("digits_numpy")
    assert module.train(np, seed, module.EPOCHS) >= FLOOR


def test_parts_of_a_batch_add_up_to_its_gradients(load):
    """A batch of 40 in parts of 16, 16 and 8, beside the whole in one part."""
    module, random = load("digits_numpy"), np.random.default_rng(0)
    x, target = random.random((40, 64)), random.random((40, 10))
    parameters = [random.standard_normal(size) for size in ((64, 64), 64, (64, 10), 10)]
    found = []
    for module.PART in (16, 40):
        sums = [np.full_like(one, np.nan) for one in parameters]
        module.gradients(x, target, parameters, sums)
        found.append(sums)
    for parts, whole in zip(*found, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_gated_linear_unit(tmp_path, seed):
    out = succeed("gated_linear_unit", "--seed", str(seed), folder=tmp_path)
    within = re.search(r"gradients of x, v, w, b: right within (\S+) in 4 random", out)[1]
    assert float(within) < 1e-10
    errors = re.search(r"mean squared error (\S+), by the best linear function (\S+)", out)
    unit, line = errors.groups()
    assert float(unit) < 0.02 * float(line)  # the most of 30 seeds was 0.014


@needs_pytorch
def test_saturation(tmp_path):
    out = succeed("saturation", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["saturation.png"]
    expect_png(tmp_path / "saturation.png")
    found = re.findall(r"(\w+) +PyTorch's .* from z = (\S+) .* right within (\S+) of itself", out)
    assert [name for name, _, _ in found] == ["float32", "float16", "bfloat16"]
    # y rounds to 1 where e⁻ᶻ is half of the distance to the number below 1, 2⁻²⁴ for float32.
    for (_, zero_from, error), bits in zip(found, (24, 12, 9), strict=True):
        assert abs(float(zero_from) - bits * np.log(2)) < 0.05
        assert float(error) < 4 * 2.0 ** (1 - bits)
    assert out.endswith("\nsaturation.png\n")


# ---- how they end


@pytest.mark.parametrize(
    ("script", "missing", "extra"),
    [
        ("digits_torch", "torch", "demo,torch"),
        ("digits_numpy", "sklearn", "demo"),
        ("gated_linear_unit", "gpugrad", "."),
        ("saturation", "torch", "demo,torch"),
        pytest.param("saturation", "matplotlib", "demo,torch", marks=needs_pytorch),
    ],
)
def test_they_name_what_is_missing(script, missing, extra, tmp_path):
    hidden, folder = tmp_path / "hidden", tmp_path / "folder"
    hidden.mkdir()
    folder.mkdir()
    why = f"No module named '{missing}'"
    text = f'raise ModuleNotFoundError("{why}", name="{missing}")\n'
    (hidden / f"{missing}.py").write_text(text)
    path = os.pathsep.join([str(hidden), environment()["PYTHONPATH"]])
    code, out, err = run(script, folder=folder, PYTHONPATH=path)
    assert (code, out) == (2, "")
    expect_one_line(err, f"{script}: {why}; pip install ", extra)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_digits_without_a_gpu(tmp_path):
    code, out, err = run(
        *("digits_numpy", "--device", "gpu"), folder=tmp_path, CUDA_VISIBLE_DEVICES=""
    )
    assert (code, out) == (2, "")
    expect_one_line(err, "digits_numpy: ", "GPU")


@needs_pytorch
def test_a_picture_that_cannot_be_written(tmp_path):
    code, out, err = run("saturation", "--output", "nowhere/picture.png", folder=tmp_path)
    assert (code, out) == (2, "")
    expect_one_line(err, "saturation: --output: ", "nowhere/picture.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("digits_numpy", ["--epochs", "0"]),
        ("digits_numpy", ["--device", "tpu"]),
        ("gated_linear_unit", ["--epochs", "many"]),
        ("gated_linear_unit", ["--seed", "-1"]),
        ("gated_linear_unit", ["--slow"]),
    ],
)
def test_bad_arguments(script, arguments, tmp_path):
    code, out, err = run(script, *arguments, folder=tmp_path)
    assert (code, out) == (2, "")
    assert arguments[0] in err.splitlines()[-1]


def test_few_epochs_promise_nothing(load, capsys):
    load("digits_numpy", "--epochs", "1").main()
    (accuracy,) = accuracies(capsys.readouterr().out)
    assert 0.1 < accuracy < FLOOR


@pytest.mark.parametrize(("script", "expected"), [("digits_numpy", 1.1), ("gated_linear_unit", 0)])
def test_less_than_is_expected_is_a_failure(load, script, expected, capsys):
    module = load(script, "--epochs", "2")
    module.EPOCHS, module.EXPECTED = 2, expected
    with pytest.raises(SystemExit, match=f"{script}: expected"):
        module.main()
    assert capsys.readouterr().out


def test_a_wrong_gradient_is_a_failure(load):
    module = load("gated_linear_unit")
    right = module.glu_backward

    def without_the_gates_part(dy, x, v, w, b):
        _, dv, dw, db = right(dy, x, v, w, b)
        return dy * module.gpugrad.dense_sigmoid(x, w, b) @ v.T, dv, dw, db

    module.glu_backward = without_the_gates_part
    with pytest.raises(SystemExit, match="gated_linear_unit: gradcheck: trial 0"):
        module.main()


# ---- what is said of them


def test_the_readme_has_all_of_them():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.py\)", text) == [
        *("digits_torch", "digits_numpy", "gated_linear_unit", "saturation")
    ]
    assert set(re.findall(r"\]\((\w+)\.py\)", text)) == set(SCRIPTS)
    assert re.findall(r"^python examples/(\w+)\.py", text, re.MULTILINE) == ["digits_torch"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_tells_how_it_is_run(script):
    text = (FOLDER / f"{script}.py").read_text(encoding="utf-8")
    assert f"\n    python examples/{script}.py" in text
    assert len(text.splitlines()) <= 125
