"""All commands alike: output, errors, exit codes, interruption; and info."""

import json
import os
import pty
import select
import signal
import subprocess
import sys

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.cli import bench, main
from gpugrad.operations import OPERATIONS
from tests.cli.commands import (
    COMMANDS,
    DISK_FULL,
    QUICK,
    environment,
    expect_one_line,
    run,
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_succeeds_and_is_silent_on_stderr(command, capsys):
    assert main(QUICK[command]) == 0
    out, err = capsys.readouterr()
    assert out
    assert not err


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_all_of_stdout(command, capsys):
    assert main([*QUICK[command], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == command
    assert document["gpugrad"] == gpugrad.__version__


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_terminal_is_wide_enough(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(QUICK[command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpugrad {gpugrad.__version__}\n"


def test_help_tells_each_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        assert main([command, "--help"]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "command"),
        (["train"], "train"),
        (["info", "--frobnicate"], "--frobnicate"),
        (["check", "--op", "relu"], "relu"),
        (["check", "--dtype", "int8"], "int8"),
        (["check", "--device", "tpu"], "tpu"),
        (["check", "--seed", "-1"], "-1"),
        (["bench", "--op", "relu"], "relu"),
        (["bench", "--dtype", "complex64"], "complex64"),
        (["bench", "--size", "64"], "'64'"),
        (["bench", "--size", "64,64"], "'64,64'"),
        (["bench", "--size", "64,x,64"], "'x'"),
        (["bench", "--size", "64,0,64"], "'0'"),
        (["bench", "--size", "64,-1,64"], "'-1'"),
        (["bench", "--size", "64,6.5,64"], "'6.5'"),
        (["bench", "--size", "1,1," + "9" * 5000], "is not a whole number"),
        (["bench", "--repeat", "0"], "'0'"),
        (["bench", "--precision", "low"], "'low'"),
        (["demo", "--epochs", "0"], "'0'"),
        (["demo", "--epochs", "many"], "'many'"),
        (["demo", "--seed", "4294967296"], "4294967296"),
        (["demo", "--dtype", "float8"], "float8"),
        (["demo", "--output", "digits.pdf"], "digits.pdf"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_bad_argument_is_one_line(arguments, named, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, named)


@pytest.mark.parametrize("command", ["check", "bench", "demo"])
def test_a_gpu_that_is_missing_is_named(command, no_gpu, capsys, monkeypatch):
    assert main([command, "--device", "gpu"]) == 2
    expect_one_line(capsys.readouterr().err, "--device is 'gpu'", "no NVIDIA driver")
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    assert main([command]) == 2
    expect_one_line(capsys.readouterr().err, "GPUGRAD_DEVICE is 'gpu'", "no NVIDIA driver")
    monkeypatch.setenv("GPUGRAD_DEVICE", "tpu")
    assert main([command]) == 2
    expect_one_line(capsys.readouterr().err, "GPUGRAD_DEVICE is 'tpu'")


@pytest.mark.parametrize("command", ["check", "bench", "demo"])
def test_bfloat16_needs_ml_dtypes(command, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert main([command, "--dtype", "bfloat16"]) == 2
    expect_one_line(capsys.readouterr().err, "pip install 'gpugrad[bfloat16]'")


def test_running_out_of_memory_is_one_line(capsys, monkeypatch):
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(bench, "_measure", fail)
    assert main(QUICK["bench"]) == 1
    expect_one_line(capsys.readouterr().err, "out of memory")


def test_as_a_module():
    result = run("info", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["device"]["GPUGRAD_DEVICE"] == "cpu"
    assert not result.stderr


def test_a_reader_that_leaves_is_no_accident():
    with subprocess.Popen(
        [sys.executable, "-m", "gpugrad", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 1
        assert not process.stderr.read()


def test_a_full_disk_behind_stdout_is_one_line():
    with DISK_FULL.open("w") as full:
        result = run("info", stdout=full)
    assert result.returncode == 1
    expect_one_line(result.stderr, "No space left on device")


def test_no_stdout_at_all():
    result = subprocess.run(
        [sys.executable, "-c", "import sys; sys.stdout = None; import gpugrad.cli as c; "
         "sys.exit(c.main(['info']) or c.main(['info', '--json']))"],
        env=environment(), stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sign"),  # what the progress bar says when the work is well under way
    [
        (["bench", "--op", "all", "--size", "3,3,3", "--against", "numpy"], b"bias_backward"),
        (["demo", "--epochs", "100000"], b"loss"),
        (["check"], b"bias_backward"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ctrl_c(arguments, sign, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "gpugrad", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(FORCE_COLOR="1"),
    ) as process:
        assert process.stderr is not None
        seen = b""
        while sign not in seen:
            seen += process.stderr.read(1)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().endswith(f"gpugrad {arguments[0]}: interrupted\n")
    assert b"Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []
    assert (b"NumPy" in out) == (arguments[0] == "bench")


@pytest.mark.slow
def test_the_progress_bar_is_on_stderr_of_a_terminal():
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gpugrad", *QUICK["demo"], "--json"],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment(TERM="xterm-256color"),
    ) as process:
        os.close(slave)
        shown = b""
        while select.select([master], [], [], 60)[0]:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
    os.close(master)
    assert process.returncode == 0
    assert f"loss {document['loss']:.4f}".encode() in shown
    assert b"Traceback" not in shown


# ---- info


def test_info_tells_versions_and_why_there_is_no_gpu(no_gpu, capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for part in (gpugrad.__version__, np.__version__, "no NVIDIA driver", "kernel cache"):
        assert part in out


def test_info_survives_a_gpu_that_fails(capsys, monkeypatch):
    def broken() -> None:
        raise RuntimeError("the device has fallen off the bus")

    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(dispatch, "runtime", broken)
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    assert main(["info", "--json"]) == 0
    gpu = json.loads(capsys.readouterr().out)["gpu"]
    assert gpu == {"usable": False, "reason": "RuntimeError: the device has fallen off the bus"}


def test_info_tells_what_is_wrong_with_the_environment(no_gpu, capsys, monkeypatch):
    monkeypatch.setenv("GPUGRAD_DEVICE", "tpu")
    assert main(["info", "--json"]) == 2
    out, err = capsys.readouterr()
    expect_one_line(err, "GPUGRAD_DEVICE is 'tpu'")
    layers = json.loads(out)["device"]["layers"]
    assert {layer["device"] for layer in layers} == {None}
    assert "'tpu'" in layers[0]["reason"]


@pytest.mark.parametrize("op", OPERATIONS)
def test_info_prints_what_a_call_would_launch(op, no_gpu, capsys):
    for dtype in ("float64", "float32", "bfloat16"):
        asked = ["info", "--plan", op, "--size", "4096,512,512", "--dtype", dtype]
        assert main(asked) == 0
        first, *steps, workspace = capsys.readouterr().out.splitlines()
        assert first.startswith(
            f"{op} 4096 × 512 × 512 {dtype}: as on an H200, because there is no"
        )
        assert all("] grid " in step and ", block " in step for step in steps)
        assert main([*asked, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [f"  {step}" for step in told["steps"]] == steps
        assert workspace == f"  workspace: {told['workspace_bytes']} bytes"
    if op == "dense_sigmoid_backward":
        assert sum("matmul_backward_wgmma" in step for step in steps) == 2


def test_info_imports_no_framework():
    code = (
        "import sys, gpugrad.cli as c; c.main(['info']); "
        "sys.exit(bool({'torch', 'jax', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60)
    assert result.returncode == 0
