"""The command line: what it prints, what it writes, and how it ends."""

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import _dispatch
from gpugrad._operations import OPERATIONS
from gpugrad.cli import bench, check, demo, digits, machine, main, operations
from tests.conftest import ON_A_GPU, emulated_runtime

COMMANDS = ("info", "check", "bench", "demo")
QUICK = {
    "info": ["info"],
    "check": ["check", "--op", "sigmoid", "--dtype", "float32"],
    "bench": ["bench", "--op", "matmul_backward", "--size", "31,7,5", "--repeat", "2"],
    "demo": ["demo", "--epochs", "2"],
}
DEVICES = ["cpu", *(["gpu"] if ON_A_GPU else [])]
WAYS = {"NumPy", "gpugrad CPU"}
WAYS_ON_A_GPU = {"gpugrad GPU", "CuPy", "copy to GPU", "copy back"}
DISK_FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: "there is no NVIDIA driver")


class Near(np.ndarray):
    """Stands for an array on the device."""

    def get(self) -> np.ndarray:
        return np.asarray(self)


class Event:
    """Stands for an event on a stream, on which everything is done at once."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        assert self.seconds


@pytest.fixture
def emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' way through CuPy, with the kernels emulated."""

    def near(array: Any, dtype: Any = None) -> Any:
        return np.array(array, dtype).view(Near)

    def call(*arguments: Any, **options: Any) -> Any:
        return {name: near(one) for name, one in on_host(*arguments, **options).items()}

    on_host = operations.call
    cuda = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda start, end: 1e3 * (end.seconds - start.seconds),
    )
    cupy = SimpleNamespace(
        asarray=near, cuda=cuda, exp=np.exp, sqrt=np.sqrt, zeros_like=np.zeros_like
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(_dispatch, "runtime", emulated_runtime)
    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(operations, "call", call)


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


# ---- all commands


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


@pytest.mark.parametrize(
    ("arguments", "sign"),  # what the progress bar says when the work is well under way
    [
        (["bench", "--size", "3,3,3", "--repeat", "200"], b"bias_backward"),
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


# ---- on a GPU, emulated


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
    arguments = ["--op", "dense_sigmoid_backward", "--size", "5,3,4", "--repeat", "1"]
    assert main(["bench", *arguments, "--json"]) == 0
    results = {one["what"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert set(results) == WAYS | WAYS_ON_A_GPU
    for name, moved in (("copy to GPU", 4 * (2 * 20 + 15 + 12)), ("copy back", 4 * (15 + 12 + 4))):
        assert results[name]["bytes"] == moved
        assert results[name]["speedup"] is None
    assert main(["bench", *arguments]) == 0


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


# ---- info


def test_info_tells_versions_and_why_there_is_no_gpu(no_gpu, capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for part in (gpugrad.__version__, np.__version__, "no NVIDIA driver", "kernel cache"):
        assert part in out


def test_info_survives_a_gpu_that_fails(capsys, monkeypatch):
    def broken() -> None:
        raise RuntimeError("the device has fallen off the bus")

    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(_dispatch, "runtime", broken)
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    assert main(["info", "--json"]) == 0
    gpu = json.loads(capsys.readouterr().out)["gpu"]
    assert gpu == {"usable": False, "reason": "RuntimeError: the device has fallen off the bus"}


def test_info_tells_what_is_wrong_with_the_environment(no_gpu, capsys, monkeypatch):
    monkeypatch.setenv("GPUGRAD_DEVICE", "tpu")
    assert main(["info", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["device"]["layers"]
    assert {layer["device"] for layer in layers} == {None}
    assert "'tpu'" in layers[0]["reason"]


def test_info_imports_no_framework():
    code = (
        "import sys, gpugrad.cli as c; c.main(['info']); "
        "sys.exit(bool({'torch', 'jax', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60)
    assert result.returncode == 0


# ---- check


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

    monkeypatch.setattr(_dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(_dispatch, "runtime", broken)
    assert main(QUICK["check"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "sigmoid float32 gpu: RuntimeError: the device has fallen off the bus" in out
    assert "1 of 2 within their bounds" in out


def test_check_saturates(capsys):
    assert max(check.SPREADS.values()) > 20
    z = operations.arrays("sigmoid", (64, 1, 64), np.dtype("float32"), seed=0, spread=40.0)["z"]
    y = gpugrad.sigmoid(z, device="cpu")
    assert np.mean(y == 1) > 0.2


# ---- bench


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


# ---- demo


def expect_png(path: Path) -> None:
    """Read the signature, the size, and the end of the file."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width > 1000
    assert height > 500
    assert content[-8:-4] == b"IEND"


@pytest.mark.parametrize("device", DEVICES)
def test_demo_reads_unseen_digits(device, capsys, tmp_path):
    assert main(["demo", "--json", "--device", device]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_accuracy"] >= 0.97
    assert result["train_accuracy"] >= result["test_accuracy"]
    assert result["device"] == device
    assert result["loss"] == result["curve"][-1]["loss"] < 0.02
    assert len(result["curve"]) == result["epochs"] == demo.EPOCHS
    assert 0 < result["gradient_seconds"] < result["seconds"]
    expect_png(tmp_path / "digits.png")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]


@pytest.mark.parametrize("seed", range(1, 5))
def test_demo_does_not_depend_on_a_lucky_seed(seed):
    learnt, unseen = digits.load(seed)
    assert len(unseen.labels) == 450
    assert np.ptp(np.bincount(unseen.labels)) <= 3  # every digit in equal proportion
    network = digits.Network("cpu", np.dtype("float32"), seed=seed, epochs=demo.EPOCHS)
    *_, last = network.learn(learnt, unseen)
    assert last.accuracy >= 0.97


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_demo_trains_in_every_dtype(dtype, capsys):
    assert main(["demo", "--json", "--dtype", dtype, "--epochs", "10"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["dtype"] == dtype
    assert result["test_accuracy"] >= 0.95


def test_demo_is_reproducible(capsys):
    curves = []
    for _ in range(2):
        assert main([*QUICK["demo"], "--json", "--seed", "3"]) == 0
        curves.append(json.loads(capsys.readouterr().out)["curve"])
    assert curves[0] == curves[1]


def test_demo_fails_where_the_network_reads_badly(capsys, monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 2)
    assert main(QUICK["demo"]) == 1
    out, err = capsys.readouterr()
    assert "test accuracy" in out
    expect_one_line(err, "expected at least 97%")


def test_demo_replaces_its_picture(tmp_path, capsys):
    (tmp_path / "old.png").write_text("something else")
    (tmp_path / "link.png").symlink_to("old.png")
    assert main([*QUICK["demo"], "--output", "link.png"]) == 0
    assert (tmp_path / "link.png").is_symlink()
    expect_png(tmp_path / "old.png")


@pytest.mark.parametrize(
    "output", ["nowhere/d.png", "folder.png", "file/d.png", "loop.png", "\0.png"]
)
def test_demo_finds_an_unwritable_output_before_it_trains(output, capsys, tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop.png").symlink_to("loop.png")
    monkeypatch.setattr(digits, "load", lambda seed: pytest.fail("training had begun"))
    assert main(["demo", "--output", output]) == 2
    expect_one_line(capsys.readouterr().err, "--output")


def test_demo_does_not_replace_a_read_only_picture(capsys, tmp_path, monkeypatch):
    (tmp_path / "d.png").write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything
    assert main(["demo", "--output", "d.png"]) == 2
    expect_one_line(capsys.readouterr().err, "d.png is read-only")
    assert (tmp_path / "d.png").read_text() == "kept"


def test_demo_on_a_full_disk(capsys, tmp_path):
    (tmp_path / "d.png").symlink_to(DISK_FULL)
    assert main([*QUICK["demo"], "--output", "d.png"]) == 1
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, "d.png", "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["d.png"]


@pytest.mark.parametrize("module", ["sklearn.datasets", "matplotlib"])
def test_demo_names_what_is_missing(module, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 2
    expect_one_line(capsys.readouterr().err, "pip install 'gpugrad[demo]'")
