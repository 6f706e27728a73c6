"""The tests of docs/testing.md, in a project of their own, pass and fail as they should."""

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
RIGHT = """import gpugrad

def gradients(dy, y, x, w):
    return gpugrad.dense_sigmoid_backward(dy, y, x, w)
"""
WRONG = RIGHT.replace("return ", "grads = ") + "    grads.dw[-1, -1] *= 1.01\n    return grads\n"
MESSAGE = (
    r"dense_sigmoid_backward: dw\[32, 16\] is \S+, exactly \S+: "
    r"its error \S+ is \S+ times its bound \S+"
)


def run(folder, code, *command):
    (folder / "train.py").write_text(code, encoding="utf-8")
    (module,) = re.findall(r"^```py\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    (folder / "test_train.py").write_text(module, encoding="utf-8")
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"GPUGRAD_DEVICE": "cpu", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_right_gradients_pass(tmp_path):
    done = run(tmp_path, RIGHT, *PYTEST)
    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout


def test_wrong_gradients_fail_with_a_message(tmp_path):
    done = run(tmp_path, WRONG, *PYTEST)
    assert done.returncode == 1
    assert "10 failed, 2 passed" in done.stdout
    for text in (GUIDE.replace("\n", " "), done.stdout):
        assert re.search(MESSAGE, text)


def test_neither_pytest_nor_a_framework_is_imported(tmp_path):
    code = (
        "import sys; from gpugrad.testing import assert_within_bounds;"
        "print({'pytest', 'hypothesis', 'ml_dtypes', 'cupy', 'torch', 'jax'} & set(sys.modules))"
    )
    assert run(tmp_path, RIGHT, "-c", code).stdout == "set()\n"
