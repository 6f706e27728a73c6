"""compute-sanitizer over calls of every kernel instantiation: memory accesses and races."""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import section

TOOLS = ("memcheck", "racecheck")
FOUND_ERRORS = 86  # the exit code that the sanitizer is to give
UNABLE = (  # what it says where it cannot work on a machine
    "Device not supported",
    "No attachable process found",
    "Failed to initialize",
    "Unable to find injection library",
)
ERRORS = re.compile(r"ERROR SUMMARY: (\d+) errors?")
HAZARDS = re.compile(
    r"RACECHECK SUMMARY: (\d+) hazards? displayed \((\d+) errors?, (\d+) warnings?\)"
)
SHOWN = 6000  # characters of the report on errors


def work(section_: section.Section) -> None:
    """Run each tool over all calls."""
    program = find()
    section_.data["program"] = None if program is None else str(program)
    if program is None:
        section_.skipped = "compute-sanitizer is neither on PATH nor in CUDA's folders"
        return
    told = []
    for index, tool in enumerate(TOOLS):
        seconds = max(1.0, (section_.left() - 1) / (len(TOOLS) - index))
        result = run(program, tool, quick=section_.quick, seconds=seconds)
        problem = judge(result)
        section_.data[tool] = result
        if result["unable"]:
            told.append(f"{tool} cannot run here ({result['unable']})")
        elif problem:
            section_.failures.append(f"{tool}: {problem}")
        elif result["stopped"]:
            section_.unfinished = f"{tool} was stopped after {made(result)}"
        else:
            warnings = f" and {result['warnings']} warnings" if result["warnings"] else ""
            told.append(f"{tool} {result['errors']} errors{warnings} in {result['done']} calls")
        section_.summary = ", ".join(told)
        section_.save()
    if all(section_.data[tool]["unable"] for tool in TOOLS):
        section_.summary, section_.skipped = "", section_.summary


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Find compute-sanitizer on PATH or in the folders where CUDA is installed."""
    on_path = shutil.which("compute-sanitizer", path=environment.get("PATH"))
    if on_path is not None:
        return Path(on_path)
    return next((path for path in _candidates(environment) if os.access(path, os.X_OK)), None)


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    roots = [Path(environment[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in environment]
    roots += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    for root in roots:
        for folder in ("bin", "compute-sanitizer"):
            yield root / folder / "compute-sanitizer"


def run(program: Path, tool: str, *, quick: bool, seconds: float) -> dict[str, Any]:
    """Run one tool over the calls and read its report."""
    with tempfile.TemporaryDirectory() as folder:
        progress, report = Path(folder, "progress.json"), Path(folder, "report.txt")
        with report.open("wb") as output:
            words = command(program, tool, progress, quick=quick)
            code = section.wait(words, os.environ, output, seconds)
        text = report.read_text(encoding="utf-8", errors="replace")
        counts = {"done": 0, "planned": None}
        if progress.is_file():
            counts = json.loads(progress.read_text())
    return {**read_report(text), "exit_code": code, "stopped": code is None, **counts}


def command(program: Path, tool: str, progress: Path, *, quick: bool) -> list[str]:
    """Return the command line of a tool over the calls.

    Errors that CUDA calls return are left to the program: asking a device for what it does not
    have is no error of a kernel.
    """
    options = ["--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--print-limit", "20"]
    if tool == "memcheck":
        options += ["--report-api-errors", "no"]
    calls = [sys.executable, "-m", "bench.sanitized_calls", "--progress", str(progress)]
    return [str(program), *options, *calls, *(["--quick"] if quick else [])]


def read_report(text: str) -> dict[str, Any]:
    """Read a sanitizer's output.

    Returns
    -------
    dict
        errors and warnings, None where there is no summary; unable, why the tool cannot run
        here, or an empty string; report, the output's end if it tells of anything.
    """
    counts = [(int(one), 0) for one in ERRORS.findall(text)]
    counts += [(int(errors), int(warnings)) for _, errors, warnings in HAZARDS.findall(text)]
    unable = next((reason for reason in UNABLE if reason in text), "")
    errors = sum(one for one, _ in counts) if counts else None
    warnings = sum(one for _, one in counts) if counts else None
    clean = errors == 0 and warnings == 0
    return {
        "errors": errors,
        "warnings": warnings,
        "unable": unable,
        "report": "" if clean else text[-SHOWN:],
    }


def judge(result: Mapping[str, Any]) -> str:
    """Return what is wrong with a tool's run: nothing, if it was stopped or cannot run here.

    A clean report says nothing where the program under it did not make all its calls.
    """
    if result["unable"]:
        return ""
    if result["errors"]:
        return f"{result['errors']} errors"
    if result["stopped"]:
        return ""
    if result["errors"] is None:
        return f"no summary (exit code {result['exit_code']})"
    if result["exit_code"] or result["done"] != result["planned"]:
        return f"the program ended with exit code {result['exit_code']} after {made(result)}"
    return ""


def made(result: Mapping[str, Any]) -> str:
    """Return how many calls were made of how many."""
    planned = result["planned"]
    return f"{result['done']} {'' if planned is None else f'of {planned} '}calls"


if __name__ == "__main__":
    section.main(work)
