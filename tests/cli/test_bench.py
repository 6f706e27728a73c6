"""gpugrad bench: what it measures, refuses, keeps and draws."""

import itertools
import json
import math
import os
import re
import struct
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gpugrad import dispatch, host
from gpugrad.benchmark import (
    cases,
    environment,
    figures,
    load,
    roofline,
    rows,
    sizes,
    stages,
    tables,
    timer,
)
from gpugrad.benchmark.peers import PEERS
from gpugrad.cli import arguments, bench, main
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from tests.cli.commands import (
    DISK_FULL,
    QUICK,
    TIMED,
    TIMED_ON_A_GPU,
    expect_one_line,
)
from tests.conftest import ON_A_GPU

SMALL = ["--size", "3,5,7", "--repeat", "2", "--against", "numpy"]
FIGURES = ["--plot", "a.png", "--html", "a.html"]


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    """Nobody rests, and figures are drawn of short measurements."""
    monkeypatch.setattr(timer, "REST_SECONDS", 0.0)
    monkeypatch.setattr(timer, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(load, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "COPIED", 1 << 16)
    monkeypatch.setattr(rows, "MAX_ROWS", 16)
    for module in (roofline, rows, stages):
        monkeypatch.setattr(module, "BUDGET", timer.TimeBudget(rounds=2, seconds=1))


def document(capsys, *arguments, code=0):
    assert main(["bench", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# ---- what is measured


@pytest.mark.gpu
def test_bench_measures_each_case(capsys):
    arguments = ["--op", "all", "--dtype", "float32", "--dtype", "float16", "--repeat", "2"]
    sizes = ["--size", "64,8,16", "--size", "3,5,7", "--against", "numpy"]
    found = document(capsys, *arguments, *sizes)
    assert found["stopped"] is None
    assert found["left_out"] == []
    results = found["results"]
    names = (TIMED | TIMED_ON_A_GPU) - {"CuPy"} if ON_A_GPU else TIMED
    assert {one["what"] for one in results} == names
    assert len(results) == len(OPERATIONS) * 2 * 2 * len(names)
    for one in results:
        low, high = one["quartiles"]
        assert 0 < low <= one["seconds"] <= high
        assert one["samples"] == 2
    whole = next(one for one in results if one["op"] == "dense_sigmoid_backward")
    assert whole["flops"] == 2 * 2 * 64 * 8 * 16
    assert whole["bytes"] == 4 * (2 * 64 * 16 + 64 * 8 + 8 * 16 + 64 * 8 + 8 * 16 + 16)


def test_a_speed_up_is_the_others_time_over_ours(capsys):
    results = {one["what"]: one for one in document(capsys, *SMALL)["results"]}
    ours, numpy = results["gpugrad CPU"], results["NumPy"]
    told = ours["ratios"]["NumPy"]
    assert told["ratio"] == pytest.approx(numpy["seconds"] / ours["seconds"])
    assert told["quartiles"][0] <= told["quartiles"][1]
    assert "ratios" not in numpy


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_errors_are_told_of_each_result(dtype, capsys):
    found = document(capsys, *SMALL, "--dtype", dtype)
    roundoff = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}[dtype]
    for one in found["results"]:
        assert one["errors"].keys() == {"dx", "dw", "db"}
        assert one["error"] == max(one["errors"].values())
        assert 0 < one["error"] < 8 * roundoff


def test_what_is_measured_without_options(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "_measure", lambda one, *rest: seen.append(one.case))
    assert main(["bench", "--against", "numpy", "--json"]) == 0
    assert [case.preset for case in seen] == list(sizes.DEFAULT)
    assert {(case.op, case.dtype) for case in seen} == {("dense_sigmoid_backward", "float32")}
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_precisions_are_told_apart_where_they_mean_something():
    found = cases.product(
        ["sigmoid", "matmul_backward"],
        ["float32", "float64"],
        ["highest", "high"],
        [(3, 4, 5)],
    )
    assert [(one.op, one.dtype, one.precision) for one in found] == [
        ("sigmoid", "float32", "highest"),
        ("sigmoid", "float64", "highest"),
        ("matmul_backward", "float32", "highest"),
        ("matmul_backward", "float32", "high"),
        ("matmul_backward", "float64", "highest"),
    ]
    assert [one.options for one in found[2:4]] == [{}, {"precision": "high"}]


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_case_is_the_problem_that_the_library_sees(op):
    case = cases.Case(op, "float32", "highest", (31, 7, 5))
    operands = operations.random_operands(op, case.size, np.dtype("f4"), seed=0)
    with dispatch.Call(op, **operands) as call:
        assert case.problem == dispatch.problem_of(call, OPERATIONS[op].wrt)


@pytest.mark.parametrize("op", OPERATIONS)
def test_plain_expressions_compute_the_same(op):
    operands = operations.random_operands(op, (31, 7, 5), np.dtype("float64"), seed=0)
    ours = operations.call(op, operands, device="cpu")
    theirs = operations.plain(op, np, operands)
    for name, result in ours.items():
        np.testing.assert_allclose(result, theirs[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if OPERATIONS[op].takes_z])
def test_operands_are_those_that_a_forward_pass_leaves(op):
    drawn = operations.consistent_arrays(op, (31, 7, 5), np.dtype("float64"), seed=0)
    z = drawn["x"] @ drawn["w"] if "x" in drawn else drawn["z"]
    np.testing.assert_allclose(drawn["y"], 1 / (1 + np.exp(-z)), rtol=1e-12)


@pytest.mark.parametrize(
    ("short", "order"),
    [
        (0.0, "ab" + "ba" + "ab"),  # long calls: that which tells the length is the first sample
        (1.0, "ab" + "abbaab"),  # short ones are repeated, before each turn too
    ],
)
def test_candidates_are_interleaved_and_rounds_end_with_the_time(short, order, monkeypatch):
    seen = []
    pair = [timer.Candidate(name, lambda name=name: seen.append(name), warm=True) for name in "ab"]
    monkeypatch.setattr(timer, "SHORT_SECONDS", short)
    monkeypatch.setattr(timer, "SAMPLE_SECONDS", 1e-5 * short)
    monkeypatch.setattr(timer, "WARM_SECONDS", 1e-5 * short)
    timer.interleave(pair, timer.TimeBudget(rounds=9, seconds=0))
    assert "".join(name for name, _ in itertools.groupby(seen)) == "".join(
        name for name, _ in itertools.groupby(order)
    )
    assert [len(one.samples) for one in pair] == [3, 3]
    assert pair[0].summary.count == 3
    assert (len(seen) > len(order)) == (short > 0)


def test_the_environment_is_told(capsys):
    facts = document(capsys, *SMALL)["environment"]
    assert facts["processor"] == host.processor()
    assert facts["gpugrad"]["threads"] >= 1
    assert facts["peers"]["NumPy"]["version"] == np.__version__
    assert facts["peers"]["NumPy"]["threads"] >= 1
    assert main(["bench", *SMALL]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"NumPy {np.__version__} ({facts['peers']['NumPy']['blas']}, " in told


@pytest.mark.parametrize(("columns", "shown"), [(40, False), (100, True)])
def test_narrow_terminals_keep_time_speed_up_and_error(columns, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["bench", *SMALL]) == 0
    head, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert all(title in head for title in ("by", "time", "speed-up", "error"))
    assert ("quartiles" in head) == shown
    assert first.split()[:2] == ["gpugrad", "CPU"]
    assert re.match(r"  NumPy +[\d.]+ .s +[\d.]+ × +\d\.\de-\d+$", second[:40])


# ---- what is refused


@pytest.mark.parametrize("size", ["1000000,1000000,1000000", "1,1," + "9" * 17])
@pytest.mark.parametrize("op", OPERATIONS)
def test_bench_refuses_what_does_not_fit(op, size, capsys):
    assert main(["bench", "--op", op, "--size", "3,3,3", "--size", size]) == 2
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, f"{op} at {size}", "B of memory", "has")


def test_predicted_memory_grows_with_those_who_keep_copies():
    case = cases.Case("dense_sigmoid_backward", "bfloat16", "highest", (1000, 64, 32))
    alone, beside = (cases.host_bytes(case, peers) for peers in ([], [PEERS["jax"]]))
    assert beside - alone == 2 * (1000 * 64 + 64 * 32 + 2 * 1000 * 32)
    assert alone > 2 * (1000 * 64 + 64 * 32 + 2 * 1000 * 32)


def test_a_size_that_nobody_asked_for_is_left_out_where_it_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr(environment, "free_memory", lambda: 100_000_000)
    monkeypatch.setattr(sizes, "DEFAULT", ("tiny", "tabular"))
    arguments = ["--repeat", "1", "--against", "numpy"]
    found = document(capsys, *arguments)
    assert {one["preset"] for one in found["results"]} == {"tiny"}
    (left_out,) = found["left_out"]
    assert left_out["preset"] == "tabular"
    assert "B of memory" in left_out["reason"]
    assert main(["bench", *arguments, "--size", "tabular"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("size", sizes.PRESETS)
def test_sizes_have_names(size):
    assert arguments.layer(size.upper()) == sizes.PRESETS[size]
    assert sizes.name_of(arguments.layer(",".join(map(str, sizes.PRESETS[size])))) == size


def test_an_unknown_size_is_told_with_those_that_there_are(capsys):
    assert main(["bench", "--size", "gpt5"]) == 2
    expect_one_line(capsys.readouterr().err, "'gpt5'", "gpt2", "N,K,M")


@pytest.mark.parametrize(("against", "named"), [("tensorflow", "'tensorflow'"), (",", "','")])
def test_an_unknown_peer_is_told_with_those_that_there_are(against, named, capsys):
    assert main(["bench", "--against", against]) == 2
    expect_one_line(capsys.readouterr().err, named, "numpy, torch, jax, cupy")


@pytest.mark.parametrize(
    ("option", "path", "says"),
    [
        ("--plot", "a.svg", "does not end in .png"),
        ("--html", "a.txt", "does not end in .html"),
        ("--plot", "nowhere/a.png", "cannot be written"),
        ("--html", "folder.html", "is a directory"),
        ("--html", "kept.html", "is read-only"),
    ],
)
def test_an_unwritable_output_is_found_before_the_work(
    option, path, says, capsys, tmp_path, monkeypatch
):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "kept.html").write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("measuring had begun"))
    assert main(["bench", option, path]) == 2
    expect_one_line(capsys.readouterr().err, option, path, says)
    assert (tmp_path / "kept.html").read_text() == "kept"


@pytest.mark.parametrize("option", ["--plot a.png", "--html a.html"])
def test_matplotlib_is_asked_for_before_the_work(option, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "installed", lambda module: module != "matplotlib")
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("measuring had begun"))
    assert main(["bench", *option.split()]) == 2
    expect_one_line(capsys.readouterr().err, "Matplotlib", "pip install 'gpugrad[bench]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_behind_a_figure_is_one_line_after_the_table(capsys, tmp_path):
    (tmp_path / "a.png").symlink_to(DISK_FULL)
    assert main(["bench", *SMALL, "--plot", "a.png"]) == 1
    out, err = capsys.readouterr()
    assert "gpugrad CPU" in out
    expect_one_line(err, "a.png", "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_figures_are_drawn_where_nobody_reads_the_table(tmp_path, monkeypatch):
    def left(document):
        raise BrokenPipeError

    monkeypatch.setattr(tables, "sections", left)
    monkeypatch.setattr("gpugrad.cli._abandon_stdout", lambda: None)
    assert main(["bench", *SMALL, "--plot", "a.png"]) == 1
    expect_png(tmp_path / "a.png")


def test_a_bad_number_of_threads_is_told(capsys, monkeypatch):
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "x")
    assert main(["bench"]) == 2
    expect_one_line(capsys.readouterr().err, "GPUGRAD_NUM_THREADS is 'x'")


# ---- what is kept


def test_bench_fails_where_a_result_is_wrong(capsys, monkeypatch):
    call = operations.call

    def wrong(op, operands, *, device):
        results = call(op, operands, device=device)
        results["dw"][-1, -1] += 1
        return results

    monkeypatch.setattr(operations, "call", wrong)
    assert main(QUICK["bench"]) == 1
    expect_one_line(capsys.readouterr().err, "matmul_backward is wrong in float32", "dw is")


@pytest.mark.parametrize("end", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("form", ["table", "json"])
def test_what_was_measured_before_the_end_is_kept(form, end, capsys, tmp_path, monkeypatch):
    measure = bench._measure

    def ends(one, *rest):
        if one.case.op == "bias_backward":
            raise end
        measure(one, *rest)

    monkeypatch.setattr(bench, "_measure", ends)
    arguments = ["--op", "sigmoid", "--op", "bias_backward", *SMALL, *FIGURES]
    code = main(["bench", *arguments, *(["--json"] if form == "json" else [])])
    words = "interrupted" if end is KeyboardInterrupt else "out of memory"
    assert code == (130 if end is KeyboardInterrupt else 1)
    out, err = capsys.readouterr()
    expect_one_line(err, words)
    if form == "json":
        found = json.loads(out)
        assert found["stopped"] == words
        assert {one["op"] for one in found["results"]} == {"sigmoid"}
    else:
        assert "sigmoid float32 3 × 5 × 7" in out
        assert "bias_backward" not in out
        assert f"stopped: {words}" in " ".join(out.split())
    expect_png(tmp_path / "a.png")
    page = (tmp_path / "a.html").read_text()
    assert "sigmoid float32 3 × 5 × 7" in page
    assert f"stopped: {words}" in page


def test_samples_of_a_case_that_was_interrupted_are_kept(capsys, monkeypatch):
    counted = []
    call = operations.call

    def interrupted(*arguments, **options):
        counted.append(None)
        if len(counted) == 5:
            raise KeyboardInterrupt
        return call(*arguments, **options)

    monkeypatch.setattr(operations, "call", interrupted)
    monkeypatch.setattr(timer, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(timer, "SAMPLE_SECONDS", 0.0)
    arguments = ["--size", "3,5,7", "--repeat", "9", "--against", "numpy"]
    found = document(capsys, *arguments, code=130)
    assert {one["what"]: one["samples"] for one in found["results"]} == {
        "gpugrad CPU": 3,
        "NumPy": 4,
    }


# ---- figures


def expect_png(path: Path) -> None:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1872, 1378)
    assert content[-8:-4] == b"IEND"


class Page(HTMLParser):
    """Checks that what is opened is closed, and collects what matters."""

    ALONE = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.fetched = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_figures_are_drawn(capsys, tmp_path):
    sizes = ["--size", "digits", "--size", "3,5,7", "--repeat", "2", "--against", "numpy"]
    found = document(capsys, *sizes, *FIGURES)
    expect_png(tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.png"]
    (roof_,) = [one for one in found["rooflines"] if one["device"] == "cpu"]
    assert roof_["flops_per_second"] > 0
    assert roof_["bytes_per_second"] > 0
    assert roof_["by"] in ("gpugrad CPU", "NumPy")
    drawn = found["rows"]
    assert (drawn["k"], drawn["m"]) == (64, 64)
    assert {one["n"] for one in drawn["points"]} == {1, 4, 16}
    on_cpu = [one for one in found["stages"] if one["device"] == "cpu"]
    assert [one["preset"] for one in on_cpu] == ["digits", None]
    assert all(min(one["seconds"].values()) > 0 for one in on_cpu)
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert page.seen.count("svg") == 3
    assert page.seen.count("table") == 2
    assert len(set(page.ids)) == len(page.ids)
    assert page.fetched == []
    assert "url(http" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "#0a0b" not in text  # all placeholders have become the page's colours
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert {"ink", "muted", "blue", "orange"} <= used <= set(figures.LIGHT)


def test_both_themes_can_be_read():
    """By WCAG's contrast ratio: 4.5 for text, 2 for marks."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for theme in (figures.LIGHT, figures.DARK):
        assert theme.keys() == figures.LIGHT.keys()
        paper = luminance(theme["paper"])
        for name, colour in theme.items():
            if name != "paper":
                low, high = sorted((paper, luminance(colour)))
                least = 4.5 if name in ("ink", "muted") else 2
                assert (high + 0.05) / (low + 0.05) > least, (name, colour)


@pytest.mark.slow
def test_figures_of_operations_without_products(capsys, tmp_path):
    assert main(["bench", "--op", "sigmoid", *SMALL, *FIGURES]) == 0
    expect_png(tmp_path / "a.png")
    capsys.readouterr()


@pytest.mark.slow
def test_figures_on_a_gpu(gpu, capsys, tmp_path):
    found = document(capsys, "--size", "5,3,4", "--repeat", "1", *FIGURES, "--against", "numpy")
    expect_png(tmp_path / "a.png")
    names = {one["name"] for one in found["rows"]["points"]}
    assert {"gpugrad GPU", "gpugrad GPU with copies", rows.PREDICTED} <= names
    assert {one["device"] for one in found["rooflines"]} == {"cpu", "gpu"}


@pytest.mark.parametrize(
    ("on_cpu", "on_gpu", "crossing"),
    [
        ([1, 4, 16], [9, 9, 9], 16),
        ([1, 4, 16], [9, 3, 9], 4),
        ([1, 4, 16], [0, 9, 20], None),
        ([1, 4, 16], [0, 0, 0], 1),
        ([], [], None),
    ],
)
def test_crossover(on_cpu, on_gpu, crossing):
    def line(seconds):
        return [{"n": 4**i, "seconds": one} for i, one in enumerate(seconds)]

    lines = {"gpugrad CPU": line(on_cpu), "gpugrad GPU with copies": line(on_gpu)}
    assert figures.crossover(lines) == crossing


def test_labels_are_moved_apart():
    moved = figures.apart([0.1, 0.11, 0.5, 0.98, 0.981], 0.05)
    assert moved[0] == 0.1
    assert moved[2] == 0.5
    assert max(moved) <= 0.985
    assert all(b - a > 0.05 - 1e-9 for a, b in itertools.pairwise(moved))


# ---- others


class Failing:
    """A peer that cannot do a thing."""

    title, copies = "PyTorch", 0

    def implementations(self, *_):
        raise RuntimeError("not implemented for 'Half'\nand more")

    def facts(self):
        return {"version": "1"}


def test_a_peer_that_cannot_is_left_out_with_the_reason(capsys, monkeypatch):
    monkeypatch.setattr(bench.peers, "chosen", lambda names: [Failing(), PEERS["numpy"]])
    assert main(["bench", *SMALL]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "PyTorch was left out: RuntimeError: not implemented for 'Half'" in out
    assert "NumPy" in out


@pytest.mark.parametrize(("name", "module"), [("torch", "torch"), ("jax", "jax")])
def test_a_peer_that_is_not_installed_is_told_with_the_command(name, module, capsys, monkeypatch):
    monkeypatch.setattr("gpugrad.benchmark.peers.installed", lambda wanted: wanted != module)
    assert main(["bench", "--against", f"numpy,{name}"]) == 2
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, f"--against {name}", "is not installed", f"pip install {module}")
    assert name not in {peer.name for peer in bench.peers.chosen(None)}


def test_a_peer_that_is_broken_is_told(capsys, monkeypatch):
    monkeypatch.setattr("gpugrad.benchmark.peers.installed", lambda wanted: True)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["bench", "--against", "torch"]) == 2
    expect_one_line(capsys.readouterr().err, "PyTorch cannot be used", "pip install torch")


def test_cupy_needs_a_gpu(no_gpu, capsys):
    assert main(["bench", "--against", "cupy"]) == 2
    expect_one_line(capsys.readouterr().err, "--against cupy: ")


def test_speed_ups_are_written_for_each_device():
    one = {"op": "sigmoid", "dtype": "float32", "precision": "highest", "preset": None}
    one |= {"n": 1, "k": 2, "m": 3, "seconds": 1e-3, "quartiles": [1e-3, 1e-3], "flops": 0}
    one |= {"gb_per_second": 1.0, "gflop_per_second": 0.0, "error": math.nan}
    half, twice = ({"NumPy": {"ratio": ratio}} for ratio in (0.5, 2.0))
    results = [
        {**one, "what": "gpugrad CPU", "role": "gpugrad", "ratios": half},
        {**one, "what": "gpugrad GPU", "role": "gpugrad", "ratios": twice},
        {**one, "what": "NumPy", "role": "peer"},
    ]
    found = {"results": results}
    assert [column.title for column in tables.titles(found)[2:4]] == ["CPU ×", "GPU ×"]
    ((_, lines),) = tables.sections(found)
    assert lines[2][:5] == ("NumPy", "1.00 ms", "0.50 ×", "2.00 ×", "nan")
