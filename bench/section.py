"""A section of a run: a process of its own with a time limit, and what came of it.

A crash, a hang or a broken CUDA context ends its section and no other. What a section has found
is written whole after every step, so that a section that is stopped leaves what it had.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.sticky_errors import is_sticky

ROOT = Path(__file__).resolve().parents[1]
GRACE = 3.0  # seconds beyond its limit after which a section is killed
LOG_TAIL = 4000  # characters of a failed section's output that are kept


# ---- in the section's process


@dataclass
class Section:
    """What a section knows of its run, and what it hands over.

    Attributes
    ----------
    quick : bool
    deadline : float
        On the clock of `time.monotonic`.
    into : Path or None
        Where to write; None for standard output at the end.
    data : dict
        Findings, for JSON.
    failures : list of str
        What makes the whole run fail.
    summary : str
        A line for people.
    unfinished : str
        What time did not suffice for.
    skipped : str
        Why the section cannot run on this machine.
    running : str
        The step that is under way.
    """

    quick: bool
    deadline: float
    into: Path | None = None
    data: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    summary: str = ""
    unfinished: str = ""
    skipped: str = ""
    running: str = ""

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    def handed_over(self) -> dict[str, Any]:
        """Return what is written."""
        names = ("data", "failures", "summary", "unfinished", "skipped", "running")
        return {name: getattr(self, name) for name in names}

    def begin(self, step: str) -> None:
        """Write down which step is under way: it is named if the process dies."""
        self.running = step
        self.save()

    def failed(self, step: str, error: Exception) -> None:
        """Write down the error of a step; raise it if no other step can follow in this process."""
        self.failures.append(f"{step}: {type(error).__name__}: {error}"[:1000])
        self.save()
        if is_sticky(error):
            raise error

    def save(self) -> None:
        """Write what there is so far."""
        if self.into is not None:
            write_json(self.into, self.handed_over())


def main(work: Callable[[Section], None], argv: Sequence[str] | None = None) -> None:
    """Run a section's work in this process, started by `run` or by hand."""
    parser = argparse.ArgumentParser(description=work.__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--seconds", type=float, default=600.0, help="the time limit (600)")
    parser.add_argument("--into", type=Path, help="a file for the findings (standard output)")
    arguments = parser.parse_args(argv)
    section = Section(arguments.quick, time.monotonic() + arguments.seconds, arguments.into)
    work(section)
    section.begin("")
    if arguments.into is None:
        print(json.dumps(_finite(section.handed_over()), indent=2))


# ---- in the process of the whole run


class Task(NamedTuple):
    """A section to run: its name, its module, and its share of the time, of a quick run too."""

    name: str
    module: str
    weight: float
    quick_weight: float = 1


def allowance(left: float, weights: Sequence[float]) -> float:
    """Return the first of the remaining sections its share of the time that is left.

    What an earlier section did not use is spread over all that follow.
    """
    return max(0.0, left) * weights[0] / sum(weights)


def run(
    task: Task, *, seconds: float, quick: bool, folder: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run a section in a process group of its own and tell what came of it.

    Parameters
    ----------
    task : Task
    seconds : float
        The limit that the section is told; it is killed `GRACE` seconds later.
    quick : bool
    folder : Path
        For its files.
    environment : mapping
        The environment variables of its process.

    Returns
    -------
    dict
        name, status ("ok", "failed", "over" or "skipped"), seconds, limit, summary, failures,
        data, and log (the end of its output) unless the status is "ok".
    """
    into, log = folder / f"{task.name}.json", folder / f"{task.name}.log"
    command = [sys.executable, "-m", task.module, "--seconds", f"{seconds:.1f}"]
    command += ["--into", str(into), *(["--quick"] if quick else [])]
    start = time.monotonic()
    with log.open("wb") as output:
        code = wait(command, environment, output, seconds + GRACE)
    handed = json.loads(into.read_text(encoding="utf-8")) if into.is_file() else None
    text = log.read_text(encoding="utf-8", errors="replace")
    record = {
        "name": task.name,
        "seconds": round(time.monotonic() - start, 2),
        "limit": round(seconds, 2),
        **verdict(handed, code, text),
    }
    return record if record["status"] == "ok" else {**record, "log": text[-LOG_TAIL:]}


def wait(
    command: Sequence[str], environment: Mapping[str, str], output: Any, seconds: float
) -> int | None:
    """Run a command in a process group of its own; its exit code, or None if it was killed."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop_group(process)


def run_python(arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run Python on this tree's modules; return its exit code, None if killed, and its output."""
    variables = os.environ | {"PYTHONPATH": module_path(os.environ)}
    with tempfile.TemporaryFile() as output:
        code = wait([sys.executable, *arguments], variables, output, seconds)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def module_path(inherited: Mapping[str, str]) -> str:
    """Return a PYTHONPATH on which this tree comes first."""
    return os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])])


def stop_group(process: "subprocess.Popen[Any]") -> None:
    """Kill what is left of a process that leads its own group, and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def verdict(handed: Mapping[str, Any] | None, code: int | None, log: str) -> dict[str, Any]:
    """Judge a section by what it handed over, its exit code (None: killed) and its output."""
    found: dict[str, Any] = {"data": {}, "failures": [], "summary": ""}
    found |= {name: handed[name] for name in found} if handed is not None else {}
    during = f" during {handed['running']}" if handed is not None and handed["running"] else ""
    if code not in (0, None):
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "no output")
        found["failures"] = [*found["failures"], f"exit code {code}{during}: {last.strip()}"]
    unfinished = f"stopped at its time limit{during}" if code is None else ""
    if handed is not None:
        unfinished = unfinished or handed["unfinished"]
    if found["failures"]:
        status = "failed"
    elif unfinished:
        status = "over"
    elif handed is None:
        status, found["failures"] = "failed", ["it handed nothing over"]
    else:
        status = "skipped" if handed["skipped"] else "ok"
    skipped = "" if handed is None else handed["skipped"]
    parts = [found["summary"], skipped, unfinished, *found["failures"][:1]]
    found["summary"] = "; ".join(part for part in parts if part)
    return {"status": status, "not_run": unfinished or skipped, **found}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document aside and rename it: readers find the old one or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(json_text(document), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as it is written."""
    return json.dumps(_finite(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """Turn numbers that JSON does not have into strings."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
