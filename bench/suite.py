"""The tests that are marked `gpu`: a process for each test file, and another after one that dies.

A crash, a hang or a lost CUDA context fails its test and no other: those that are left of its file
run in a new process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import recorder, section

ROOT = section.ROOT
# Of a test, or of collecting, by `quick`; after that its process is killed.
TEST_SECONDS = {True: 20.0, False: 60.0}
POLL_SECONDS = 0.1
NOT_RUN = "not run"
OUTCOMES = ("failed", "passed", "skipped", NOT_RUN)
ENDS = (0, 1, 2, 5, recorder.NO_CONTEXT)  # exit codes whose reason is on record
SHOWN = 40  # failed tests that are told with their message


@dataclass
class Part:
    """The tests of one file, and what came of them.

    Attributes
    ----------
    file : str
    outcomes : dict
        By test.
    failures : list of str
        With their messages.
    processes : int
        That it took.
    """

    file: str
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    processes: int = 0

    @property
    def left(self) -> list[str]:
        """The tests that have not run."""
        return [test for test, outcome in self.outcomes.items() if outcome == NOT_RUN]

    def counts(self) -> dict[str, int]:
        """Count the outcomes."""
        found = Counter(self.outcomes.values())
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def take(self, record: Path, end: str) -> None:
        """Read what a process recorded; `end` is how it died, empty if it ended by itself."""
        running = ""
        for line in record.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # it was killed while it wrote
            event = json.loads(line)
            if "collected" in event:
                for test in event["collected"]:
                    self.outcomes.setdefault(test, NOT_RUN)
            elif "broken" in event:
                self.failures.append(f"{event['broken']}: {event['message']}")
            elif "start" in event:
                running = event["start"]
            else:
                running, test = "", event["end"]
                self.outcomes[test] = event["outcome"]
                if event["outcome"] == "failed":
                    self.failures.append(f"{test}: {event['message']}")
        if end:
            self.failures.append(f"{running or self.file}: {end}")
            if running:
                self.outcomes[running] = "failed"


def work(section_: section.Section) -> None:
    """Run the tests of all files that there is time for."""
    parts: list[Part] = []
    section_.data["files"] = {}
    with tempfile.TemporaryDirectory() as folder:
        every = Part("collecting")
        run_process(every, Path(folder), section_, ["--collect-only", "-q", "tests"])
        files = dict.fromkeys(test.partition("::")[0] for test in every.outcomes)
        for file in files or all_files():
            known = [test for test in every.outcomes if test.partition("::")[0] == file]
            parts.append(Part(file, dict.fromkeys(known, NOT_RUN)))
        for part in parts:
            start = time.monotonic()
            run_part(part, Path(folder), section_)
            if part.processes:
                section_.data["files"][part.file] = {
                    **part.counts(),
                    "processes": part.processes,
                    "seconds": round(time.monotonic() - start, 2),
                }
            tell(section_, [every, *parts])
            section_.save()
    if not any(part.outcomes for part in parts) and not section_.failures:
        if section_.left() > 0:
            section_.failures.append("no test was selected")
        else:
            section_.unfinished = "no time to collect the tests"


def all_files() -> list[str]:
    """List the test files, where collecting did not find those with tests of a GPU."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))


def run_part(part: Part, folder: Path, section_: section.Section) -> None:
    """Run the tests of a file, and after a process that dies those that are left."""
    while section_.left() > 0:
        left, told = len(part.left), len(part.failures)
        run_process(part, folder, section_, [part.file], only=part.left)
        part.processes += 1
        if not part.left:
            break
        if len(part.left) == left and section_.left() > 0:
            if len(part.failures) == told:
                part.failures.append(f"{part.file}: {left} tests cannot be found any more")
            break


def run_process(
    part: Part,
    folder: Path,
    section_: section.Section,
    options: Sequence[str],
    only: Sequence[str] = (),
) -> None:
    """Run pytest in a process of its own until its end, that of a test's time, or of all time."""
    record, wanted = folder / "record.jsonl", folder / "only.json"
    record.write_bytes(b"")
    wanted.write_text(json.dumps(only), encoding="utf-8")
    options = [*options, *(["--only", str(wanted)] if only else [])]
    environment = os.environ | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what else the machine has is not tested
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }
    process = subprocess.Popen(
        command(record, options, quick=section_.quick), cwd=ROOT, env=environment
    )
    end, limit = "", TEST_SECONDS[section_.quick]
    try:
        while process.poll() is None and section_.left() > 0:
            if time.time() - record.stat().st_mtime > limit:
                end = f"no end after {limit:.0f} s; its process was killed"
                break
            time.sleep(POLL_SECONDS)
        else:
            end = said(process.poll())
    finally:
        process.kill()
        process.wait()
        part.take(record, end)


def said(code: int | None) -> str:
    """Return how a process died; nothing if it ended by itself, or still runs."""
    if code is None or code in ENDS:
        return ""
    name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended with {name}"


def command(record: Path, options: Sequence[str], *, quick: bool) -> list[str]:
    """Return pytest's command line."""
    return [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"),
        *("-p", "_hypothesis_pytestplugin", "-p", "bench.recorder", "--record", str(record)),
        *("-m", "gpu", *(["-k", "float32"] if quick else []), *options),
    ]


def tell(section_: section.Section, parts: Sequence[Part]) -> None:
    """Put counts, failures and what was not run into the section."""
    counts: Counter[str] = Counter()
    for part in parts[1:]:
        counts.update(part.counts())
    section_.data["counts"] = dict(counts)
    words = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    section_.summary = ", ".join(words) or "no tests"
    failures = [one for part in parts for one in part.failures]
    section_.failures = failures[:SHOWN]
    if len(failures) > SHOWN:
        section_.failures.append(f"and {len(failures) - SHOWN} more")
    left = [f"{part.file} ({len(part.left)})" for part in parts[1:] if part.left]
    section_.unfinished = f"tests were not run: {', '.join(left)}" if left else ""


if __name__ == "__main__":
    section.main(work)
