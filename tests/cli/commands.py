"""The commands, how the tests run them, and what an error looks like."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpugrad
from tests.conftest import ON_A_GPU

COMMANDS = ("info", "check", "bench", "demo")
QUICK = {
    "info": ["info"],
    "check": ["check", "--op", "sigmoid", "--dtype", "float32"],
    "bench": [
        *("bench", "--op", "matmul_backward", "--size", "31,7,5"),
        *("--repeat", "2", "--against", "numpy"),
    ],
    "demo": ["demo", "--epochs", "2"],
}
DEVICES = ["cpu", *(["gpu"] if ON_A_GPU else [])]
TIMED = {"NumPy", "gpugrad CPU"}
TIMED_ON_A_GPU = {"gpugrad GPU", "CuPy", "copy to GPU", "copy back"}
DISK_FULL = Path("/dev/full")


def environment(**more: str) -> dict[str, str]:
    root = str(Path(gpugrad.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "GPUGRAD_DEVICE": "cpu", **more}


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpugrad", *arguments],
        text=True,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=60,
        **options,
    )


def expect_one_line(text: str, *parts: str) -> None:
    assert text.startswith("gpugrad")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    for part in parts:
        assert part in text
