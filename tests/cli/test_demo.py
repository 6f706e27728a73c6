"""gpugrad demo: what it learns, draws and refuses."""

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from gpugrad.cli import demo, digits, main
from tests.cli.commands import (
    DEVICES,
    DISK_FULL,
    QUICK,
    expect_one_line,
)


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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_demo_does_not_depend_on_a_lucky_seed(seed):
    learnt, unseen = digits.load(seed)
    assert len(unseen.labels) == 450
    assert np.ptp(np.bincount(unseen.labels)) <= 3  # every digit in equal proportion
    network = digits.Network("cpu", np.dtype("float32"), seed=seed, epochs=demo.EPOCHS)
    *_, last = network.learn(learnt, unseen)
    assert last.accuracy >= 0.97


@pytest.mark.slow
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
