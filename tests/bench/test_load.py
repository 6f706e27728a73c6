"""The load of other processes: read from made-up /proc files, and of a process that is busy."""

import json
import os
import subprocess
import sys
import time

import pytest

from gpugrad.benchmark import load
from gpugrad.cli import bench, main

SECOND = os.sysconf("SC_CLK_TCK")
BENCH = ["bench", "--size", "3,5,7", "--repeat", "3", "--against", "numpy"]


def a_proc(folder, *, uptime, busy, own, child=0, stranger=0, steal=0):
    """Make /proc as it is after so many seconds."""
    ticks = {name: int(value * SECOND) for name, value in locals().items() if name != "folder"}
    (folder / "uptime").write_text(f"{uptime:.2f} 1.00\n")
    (folder / "stat").write_text(f"cpu  {ticks['busy']} 0 0 999 9 0 0 {ticks['steal']} 0 0\ncpu0 1")
    processes = {
        os.getpid(): (1, "own) name (", ticks["own"], 0),
        2_000_000: (os.getpid(), "child", 0, ticks["child"]),
        2_000_001: (2_000_000, "grandchild", ticks["child"], 0),
        2_000_002: (1, "stranger", ticks["stranger"], 0),
    }
    for process, (parent, name, user, of_children) in processes.items():
        (folder / str(process)).mkdir(exist_ok=True)
        fields = f"S {parent} 0 0 0 0 0 0 0 0 0 {user} 0 {of_children} 0 20 0"
        (folder / str(process) / "stat").write_text(f"{process} ({name}) {fields}\n")
    return load.read(folder)


def test_the_time_of_others_is_that_of_all_but_ones_own(tmp_path):
    before = a_proc(tmp_path, uptime=100, busy=50, own=5, stranger=9)
    after = a_proc(tmp_path, uptime=110, busy=70, own=9, child=2, stranger=13, steal=1)
    # 20 s of all and 1 s that the hypervisor took; 4 s are one's own, 2 s a child's that was
    # waited for and 2 s a grandchild's.
    assert load.busy_cores(before, after) == pytest.approx((21 - 8 - load.TICKS / SECOND) / 10)


def test_rounding_of_the_counters_is_no_load(tmp_path):
    before = a_proc(tmp_path, uptime=100, busy=50, own=5)
    after = a_proc(tmp_path, uptime=100.5, busy=50.5, own=5.5 - 2 / SECOND)
    assert load.busy_cores(before, after) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("missing", ["stat", "uptime", "own", "everything"])
def test_where_nothing_tells_the_load_is_unknown(tmp_path, missing):
    a_proc(tmp_path, uptime=100, busy=50, own=5)
    if missing == "everything":
        tmp_path = tmp_path / "nowhere"
    elif missing == "own":
        (tmp_path / str(os.getpid()) / "stat").unlink()
    else:
        (tmp_path / missing).write_text("nonsense\n")
    assert load.read(tmp_path) is None
    assert load.busy_cores(None, None) is None
    found = load.Load()
    assert found.warnings() == []
    assert found.document()["busy_cores_during"] is None


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (load.Load(0.05, 0.1, [0.25, 0.25]), []),
        (load.Load(1.5, 0.0), ["1.50 cores busy before"]),
        (load.Load(0.0, 0.11), ["0.11 cores busy while it was measured"]),
        (load.Load(None, None, [0.01, 0.3, 0.4]), ["Rounds differ by ± 30 %"]),
        (load.Load(0.2, 0.2, [0.5]), ["before", "while", "Rounds"]),
    ],
)
def test_what_is_warned_of(found, says):
    warnings = found.warnings()
    assert len(warnings) == len(says)
    for warning, part in zip(warnings, says, strict=True):
        assert part in warning


@pytest.fixture
def busy():
    """A process that takes a core, and no child of this one: its parent has ended."""
    spin = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    start = (
        "import subprocess, sys;"
        f"print(subprocess.Popen([sys.executable, '-c', {spin!r}], start_new_session=True,"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    yield
    os.kill(int(done.stdout), 9)


def test_a_busy_process_is_seen(busy):
    watch = load.Watch()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:  # one's own time is none of others
        pass
    found = watch.stop()
    # It shares the cores with whatever else runs, and has a fair part of one.
    assert found.before > load.MAX_BUSY_CORES
    assert found.during > load.MAX_BUSY_CORES
    assert found.during < os.cpu_count()


def as_if(monkeypatch, *, before=0.0, during=0.0, spreads=None):
    """Let the command see a load."""
    monkeypatch.setattr(load, "IDLE_SECONDS", 0.0)

    def stop(self, seen):
        return load.Load(before, during, list(seen) if spreads is None else spreads)

    monkeypatch.setattr(load.Watch, "stop", stop)


@pytest.mark.parametrize("strict", [False, True])
def test_bench_warns_in_table_figures_page_and_json(strict, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_if(monkeypatch, during=1.25, spreads=[])
    monkeypatch.setattr(bench, "_figure_steps", lambda *_: [])
    options = ["--strict"] if strict else []
    assert main([*BENCH, *options, "--html", "a.html"]) == int(strict)
    out, err = capsys.readouterr()
    said = "Other processes kept 1.25 cores busy while it was measured"
    assert f"Warning: {said}" in " ".join(out.split())
    assert (said in err) == strict
    assert f'<p class="warning">{said}' in (tmp_path / "a.html").read_text()
    assert main([*BENCH, *options, "--json"]) == int(strict)
    found = json.loads(capsys.readouterr().out)
    assert found["load"]["busy_cores_during"] == 1.25
    assert said in found["load"]["warnings"][0]


def test_a_quiet_machine_is_not_warned_of(capsys, monkeypatch):
    as_if(monkeypatch, spreads=[0.01])
    assert main([*BENCH, "--strict"]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_the_spread_of_the_rounds_is_that_of_the_timings(capsys, monkeypatch):
    as_if(monkeypatch)
    monkeypatch.setattr(load, "MAX_SPREAD", -1.0)
    assert main([*BENCH, "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["load"]["warnings"]
    assert "Rounds differ" in warning


def test_warnings_of_several_runs_are_told_once():
    assert load.warned([{"warnings": ["a", "b"]}, {"warnings": ["b"]}, {"warnings": []}]) == [
        "a",
        "b",
    ]
