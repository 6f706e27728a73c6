"""The test suite on the GPU: every test that runs on CuPy arrays or is about the GPU by name."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from bench import section

EVERYTHING = "(cupy or (gpu and not gpugrad)) and not emulator"
QUICK = "cupy and float32 and not emulator"
TO_FINISH = 10.0  # seconds that pytest has to write its report once it is interrupted
NOTHING_COLLECTED = 5  # pytest's exit code
SHOWN = 20  # failed tests that are told with their message


def work(section_: section.Section) -> None:
    """Run the tests and count what came of them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "junit.xml")
        expression = QUICK if section_.quick else EVERYTHING
        environment = os.environ | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what else the machine has is not tested
            "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(folder, "hypothesis")),
        }
        process = subprocess.Popen(command(report, expression), cwd=section.ROOT, env=environment)
        try:
            code = process.wait(max(1.0, section_.left() - TO_FINISH))
        except subprocess.TimeoutExpired:
            section_.unfinished = "the tests were interrupted"
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(TO_FINISH - 2)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
        finally:
            process.kill()
            process.wait()
        counts = read_report(report.read_text(encoding="utf-8")) if report.is_file() else None
    section_.data |= {"expression": expression, "exit_code": code, "counts": counts}
    section_.summary = summary(counts) if counts else ""
    section_.failures += problems(counts, code, interrupted=bool(section_.unfinished))


def command(report: Path, expression: str) -> list[str]:
    """Give pytest's command line."""
    return [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short"),
        *("-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"),
        *("--ignore", "tests/emulator", f"--junitxml={report}", "-k", expression, "tests"),
    ]


def read_report(text: str) -> dict[str, Any]:
    """Count the tests of a JUnit report, and name those that failed.

    Returns
    -------
    dict
        passed, failed, skipped, seconds, and failures: a list of (test, message).
    """
    root = ET.fromstring(text)
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    failures = []
    for suite in suites:
        found["seconds"] += float(suite.get("time", 0))
        for case in suite.iter("testcase"):
            bad = [one for one in case if one.tag in ("failure", "error")]
            if bad:
                found["failed"] += 1
                name = f"{case.get('classname', '')}::{case.get('name', '')}"
                failures.append((name, bad[0].get("message", "")[:500]))
            elif case.find("skipped") is not None:
                found["skipped"] += 1
            else:
                found["passed"] += 1
    return found | {"failures": failures[:SHOWN]}


def summary(counts: dict[str, Any]) -> str:
    """Tell the counts in words."""
    words = [f"{counts[name]} {name}" for name in ("failed", "passed", "skipped") if counts[name]]
    return ", ".join(words) or "no tests"


def problems(counts: dict[str, Any] | None, code: int, *, interrupted: bool) -> list[str]:
    """Tell why a run of the tests was not a success; being interrupted is no failure."""
    if counts and counts["failed"]:
        return [f"{name}: {message}" for name, message in counts["failures"]]
    none_ran = counts is not None and not (counts["passed"] or interrupted)
    if code == NOTHING_COLLECTED or none_ran:
        return ["no test was selected"]
    if code == 0 or interrupted:
        return []
    return [f"pytest ended with exit code {code}"]


if __name__ == "__main__":
    section.main(work)
