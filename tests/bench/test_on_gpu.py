"""`python -m bench.on_gpu`: what of it needs no GPU, and its sections on a played one."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import (
    environment,
    on_gpu,
    sanitize,
    section,
)

ROOT = Path(__file__).parents[2]


# ---- without a GPU


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    """No device is visible to the process, whether the machine has one or not."""
    output = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "-m", "bench.on_gpu", "--output", str(output)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bench.on_gpu: there is nothing to measure: ")
    assert "GPU" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--skip", "sleep"], ["--slow"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        on_gpu.main(arguments)
    assert caught.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


# ---- sections, their time and their files


def test_time_that_is_not_used_is_passed_on():
    assert section.allowance(100, [1, 1, 2]) == 25
    assert section.allowance(90, [1, 2]) == 30
    assert section.allowance(70, [2]) == 70
    assert section.allowance(-3, [2, 5]) == 0


@pytest.mark.parametrize(("quick", "minutes"), [(False, 8), (True, 2)])
def test_the_whole_ends_in_time(quick, minutes):
    every = on_gpu.SECONDS[quick] + section.GRACE * len(on_gpu.TASKS)
    assert every < 60 * minutes - 5  # what examining the machine takes


HANDED = {
    "data": {"a": 1},
    "failures": [],
    "summary": "fine",
    "unfinished": "",
    "skipped": "",
    "running": "",
}


@pytest.mark.parametrize(
    ("changes", "code", "status", "says"),
    [
        ({}, 0, "ok", "fine"),
        ({"failures": ["1 is 2"]}, 0, "failed", "fine; 1 is 2"),
        ({"failures": ["1 is 2"]}, None, "failed", "stopped at its time limit"),
        ({"unfinished": "no time"}, 0, "over", "fine; no time"),
        ({}, None, "over", "fine; stopped at its time limit"),
        ({"skipped": "no tool", "summary": ""}, 0, "skipped", "no tool"),
        ({}, -11, "failed", "fine; exit code -11: last words"),
        ({"running": "a row"}, -11, "failed", "fine; exit code -11 during a row: last words"),
        ({"running": "a row"}, None, "over", "fine; stopped at its time limit during a row"),
    ],
)
def test_verdict(changes, code, status, says):
    found = section.verdict(HANDED | changes, code, "first\nlast words\n\n")
    assert found["status"] == status
    assert says in found["summary"]
    assert found["data"] == {"a": 1}
    assert found["not_run"] in found["summary"]
    assert bool(found["not_run"]) == (status in ("over", "skipped") or code is None)


def test_verdict_on_nothing():
    assert section.verdict(None, 0, "")["status"] == "failed"
    assert section.verdict(None, None, "")["status"] == "over"
    assert section.verdict(None, 1, "")["failures"] == ["exit code 1: no output"]


def run_module(tmp_path, source, **options):
    (tmp_path / "a_section.py").write_text(source)
    variables = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    task = section.Task("one", "a_section", 1)
    return section.run(task, quick=True, folder=tmp_path, environment=variables, **options)


def test_a_section_runs_in_a_process_of_its_own(tmp_path):
    record = run_module(
        tmp_path,
        "from bench import section\n"
        "def work(one):\n"
        "    one.data['quick'], one.summary = one.quick, f'{one.left() > 20}'\n"
        "section.main(work)\n",
        seconds=30,
    )
    assert record["status"] == "ok"
    assert record["data"] == {"quick": True}
    assert record["summary"] == "True"
    assert record["limit"] == 30
    assert "log" not in record


def test_a_section_that_breaks_keeps_what_it_had(tmp_path):
    record = run_module(
        tmp_path,
        "from bench import section\n"
        "def work(one):\n"
        "    one.data['found'] = 1\n"
        "    one.save()\n"
        "    raise RuntimeError('out of luck')\n"
        "section.main(work)\n",
        seconds=30,
    )
    assert record["status"] == "failed"
    assert record["data"] == {"found": 1}
    assert record["summary"] == "exit code 1: RuntimeError: out of luck"
    assert "Traceback" in record["log"]


def test_a_sticky_error_ends_a_section_and_others_do_not(tmp_path):
    """What can still be told is handed over, with the step that was under way."""
    record = run_module(
        tmp_path,
        "from bench import section\n"
        "from cupy.cuda.runtime import CUDARuntimeError\n"
        "def work(one):\n"
        "    for step, status in (('first', 2), ('second', 700), ('third', 2)):\n"
        "        one.begin(step)\n"
        "        try:\n"
        "            raise CUDARuntimeError(status)\n"
        "        except Exception as error:\n"
        "            one.failed(step, error)\n"
        "section.main(work)\n",
        seconds=30,
    )
    assert record["status"] == "failed"
    names = [one.partition(": CUDARuntimeError: ")[0] for one in record["failures"][:2]]
    assert names == ["first", "second"]
    assert len(record["failures"]) == 3
    assert record["failures"][2].startswith("exit code 1 during second: ")
    assert "cudaErrorIllegalAddress" in record["failures"][2]


def test_the_first_contact_with_a_gpu_may_take_long(tmp_path, monkeypatch):
    given = []

    def run(task, *, seconds, **_):
        given.append(seconds)
        return a_record(task.name, "over", summary="stopped")

    monkeypatch.setattr(section, "run", run)
    assert "stopped" in on_gpu.probe(tmp_path, {})["missing"]
    assert given == [90]


@pytest.mark.slow
def test_a_section_that_runs_over_is_killed_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(section, "GRACE", 0)
    start = time.monotonic()
    record = run_module(
        tmp_path,
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n",
        seconds=3,
    )
    assert record["status"] == "over"
    assert time.monotonic() - start < 30
    stat = Path("/proc", record["log"].strip(), "stat")
    for _ in range(50):  # until whoever inherits it has collected it
        state = stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "Z"
        if state in "ZX":
            break
        time.sleep(0.1)
    assert state in "ZX"


def test_files_are_replaced_whole_and_are_json(tmp_path):
    path = tmp_path / "one.json"
    section.write_json(path, {"a": [math.inf, math.nan, 1.5, np.float64(2).item()], 3: "µ"})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"a": ["inf", "nan", 1.5, 2.0], "3": "µ"}
    with pytest.raises(TypeError):
        section.write_json(path, {"a": object()})
    assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def a_record(name="tests", status="ok", **changes):
    whole = {"name": name, "status": status, "seconds": 1.0, "limit": 2.0}
    return whole | {"summary": "", "failures": [], "data": {}, "not_run": ""} | changes


def a_document(**changes):
    found = {
        "missing": None,
        "device": {"name": "NVIDIA H200"},
        "driver": "580.1",
        "cuda": {"driver": "13.0", "runtime": "13.0", "nvrtc": "13.0"},
        "versions": {"cupy": "14.2.0", "torch": None},
    }
    return on_gpu.start(found, quick=False, commit="0123456789abcdef") | changes


def test_the_document_is_written_after_every_section(tmp_path):
    path, seen = tmp_path / "run.json", []
    document = a_document()

    def run(task, seconds):
        kept = json.loads(path.read_text())["sections"] if path.exists() else []
        seen.append((task.name, seconds, [one["name"] for one in kept]))
        return a_record(task.name, "failed" if task.name == "b" else "ok")

    tasks = [section.Task(name, "", weight) for name, weight in (("a", 1), ("b", 1), ("c", 2))]
    on_gpu.run_all(tasks, document, path, 40.0, run)
    assert [(name, before) for name, _, before in seen] == [
        ("a", []),
        ("b", ["a"]),
        ("c", ["a", "b"]),
    ]
    np.testing.assert_allclose([seconds for _, seconds, _ in seen], [10, 13.3, 40], rtol=0.05)
    written = json.loads(path.read_text())
    assert written["complete"]
    assert written["exit_code"] == 1
    assert written == json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("statuses", "code"),
    [((), 0), (("ok", "skipped"), 0), (("ok", "over"), 3), (("ok", "failed", "over"), 1)],
)
def test_exit_code(statuses, code):
    assert on_gpu.exit_code([a_record(status=status) for status in statuses]) == code


def test_the_file_is_named_by_device_date_and_commit():
    document = a_document(date="2026-03-01T10:00:00+00:00")
    document["source"] = {"commit": "0123456789abcdef", "dirty": False, "sources": "fedcba98765"}
    assert on_gpu.file_name(document) == "nvidia-h200-2026-03-01-0123456789ab.json"
    document |= {"quick": True, "source": document["source"] | {"dirty": True}}
    assert on_gpu.file_name(document) == "nvidia-h200-2026-03-01-0123456789ab-changed-quick.json"
    document["source"] |= {"commit": None, "dirty": None}
    assert on_gpu.file_name(document) == "nvidia-h200-2026-03-01-sourcesfedcba98-quick.json"


def test_sections_inherit_no_precision_and_no_caches(tmp_path):
    given = {"CUPY_TF32": "1", "GPUGRAD_DEVICE": "cpu", "PYTHONPATH": "/a", "HOME": "/b"}
    variables = on_gpu.process_environment(tmp_path, given)
    assert not variables.keys() & set(on_gpu.REMOVED)
    assert variables["HOME"] == "/b"
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/a"]
    assert Path(variables["GPUGRAD_CACHE_DIR"]).is_relative_to(tmp_path)


def test_revision(tmp_path):
    here = environment.revision(tmp_path, commit="abc")
    assert (here["commit"], here["dirty"]) == ("abc", None)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "one.cu").write_text("1")
    assert environment.sources_digest(tmp_path) != here["sources"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *command], cwd=tmp_path, check=True)
    clean = environment.revision(tmp_path, commit="abc")
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "two.py").write_text("")
    assert environment.revision(tmp_path)["dirty"] is True


# ---- sanitizer: what its reports say

CLEAN = "========= COMPUTE-SANITIZER\nsigmoid\n========= ERROR SUMMARY: 0 errors\n"
BAD = (
    "========= Invalid __global__ write of size 4 bytes\n"
    "=========     at sigmoid+0x110\n========= ERROR SUMMARY: 3 errors\n"
)
RACES = "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n"
UNABLE = '========= Error: Device not supported. Please refer to the "Supported Devices" section\n'


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        (CLEAN, {}, ""),
        (BAD, {"exit_code": 86}, "3 errors"),
        (BAD, {"stopped": True}, "3 errors"),
        (RACES, {"exit_code": 86}, "1 errors"),
        (RACES.replace("1 error,", "0 errors,"), {}, ""),
        (UNABLE, {"exit_code": 1, "done": 0}, ""),
        ("", {"stopped": True, "done": 3}, ""),
        ("Segmentation fault\n", {"exit_code": 139, "done": 3}, "no summary (exit code 139)"),
        (CLEAN, {"exit_code": 1, "done": 3}, "exit code 1 after 3 of 7 calls"),
        (CLEAN, {"done": 3}, "exit code 0 after 3 of 7 calls"),
    ],
)
def test_what_a_sanitizer_says(text, changes, says):
    counts = {"exit_code": 0, "done": 7, "planned": 7, "stopped": False}
    result = sanitize.read_report(text) | counts | changes
    judged = sanitize.judge(result)
    assert says in judged
    assert bool(says) == bool(judged)
    assert result["report"] == ("" if text == CLEAN else text)
    assert bool(result["unable"]) == (text == UNABLE)


def test_where_the_sanitizer_is_looked_for(tmp_path):
    program = tmp_path / "cuda" / "bin" / "compute-sanitizer"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert sanitize.find({"PATH": str(program.parent)}) == program
    assert sanitize.find({"PATH": "", "CUDA_HOME": str(tmp_path / "cuda")}) == program


def test_a_sanitizer_is_run_over_the_calls_and_read(tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --progress ]; do shift; done\n'
        'echo \'{"done": 48, "planned": 48}\' > "$2"\n'
        "echo '========= ERROR SUMMARY: 0 errors'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sanitize, "find", lambda: program)
    one = section.Section(quick=True, deadline=time.monotonic() + 60)
    sanitize.work(one)
    assert one.failures == []
    assert one.summary == "memcheck 0 errors in 48 calls, racecheck 0 errors in 48 calls"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    one = section.Section(quick=True, deadline=time.monotonic() + 3)
    sanitize.work(one)
    assert "stopped after 0 calls" in one.unfinished
    assert one.failures == []
