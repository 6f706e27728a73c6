"""A pytest plugin that writes down, as it happens, which test runs and what came of it.

Lines of JSON: what was collected, where collecting failed, and the start and the end of each test.
So a process that is killed, or dies, leaves the name of its test. A sticky CUDA error ends the
process with its test: all that came after it in this process would fail too.
"""

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from bench.sticky_errors import is_sticky

NO_CONTEXT = 70  # exit code of a process that a sticky error has ended
SHOWN = 500  # characters of a message


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--record", type=Path, help="the file to append to")
    parser.addoption("--only", type=Path, help="a file with the names of the tests to run, in JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Start recording."""
    only = config.getoption("only")
    wanted = None if only is None else set(json.loads(only.read_text(encoding="utf-8")))
    config.pluginmanager.register(Recorder(config.getoption("record"), wanted))


class Recorder:
    """Writes the record of one process."""

    def __init__(self, path: Path, wanted: set[str] | None) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)  # a line at a time
        self._wanted = wanted
        self._outcome, self._message = "passed", ""

    def _write(self, **event: Any) -> None:
        self._file.write(json.dumps(event) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that are asked for."""
        if self._wanted is not None:
            items[:] = [item for item in items if item.nodeid in self._wanted]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down what cannot be imported."""
        if report.failed:
            self._write(broken=report.nodeid, message=message(report))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write down what there is to run."""
        self._write(collected=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write down what runs."""
        self._outcome, self._message = "passed", ""
        self._write(start=nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Wait for the GPU, so that an error of its kernels is that of the test."""
        try:
            result = yield
        except BaseException as error:
            if not is_sticky(error):
                synchronize()
            raise
        synchronize()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """End the process where its CUDA context is lost."""
        report = yield
        if call.excinfo is not None and is_sticky(call.excinfo.value):
            told = f"{message(report)} (a sticky error: the process was given up)"
            self._write(end=item.nodeid, outcome="failed", message=told)
            os._exit(NO_CONTEXT)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of a test's phases."""
        if report.failed:
            self._outcome, self._message = "failed", self._message or message(report)
        elif report.skipped and self._outcome == "passed":
            self._outcome = "skipped"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write down what came of the test."""
        self._write(end=nodeid, outcome=self._outcome, message=self._message)


def message(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return what an error says, without the way to it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return report.longreprtext[-SHOWN:] if crash is None else str(crash.message)[:SHOWN]


def synchronize() -> None:
    """Wait for the GPU; raise a sticky error of what has run on it, and nothing else."""
    with contextlib.suppress(ImportError):
        from cupy.cuda import runtime

        try:
            runtime.deviceSynchronize()
        except runtime.CUDARuntimeError as error:
            if is_sticky(error):
                raise
