"""How `python -m bench.on_gpu` runs the tests: a process for each file, and what dies is named."""

import json
import os
import time
from pathlib import Path
from textwrap import dedent

import pytest

from bench import section, suite

ROOT = Path(__file__).parents[2]
HEAD = "import pytest\npytestmark = pytest.mark.gpu\n"
FILES = {
    "crash": """
        import os, signal
        def test_before(): pass
        def test_dies(): os.kill(os.getpid(), signal.SIGSEGV)
        def test_after(): pass
        def test_ends(): os._exit(3)
        def test_last(): pass
    """,
    "hang": """
        import time
        def test_hangs(): time.sleep(60)
        def test_after(): pass
    """,
    "sticky": """
        from cupy.cuda.runtime import CUDARuntimeError
        lost = False
        def fails(status):
            raise CUDARuntimeError(status)
        def test_out_of_memory(): fails(2)
        def test_illegal_address():
            global lost
            lost = True
            try:
                fails(700)
            except CUDARuntimeError as error:
                raise ValueError("no result") from error
        def test_after(): assert not lost, "in the process that has no context any more"
    """,
    "outcomes": """
        @pytest.fixture
        def broken(): raise KeyError("of a fixture")
        @pytest.fixture
        def leaves():
            yield
            raise KeyError("afterwards")
        def test_wrong(): assert 1 == 2
        def test_skipped(): pytest.skip("needs JAX")
        def test_set_up(broken): pass
        def test_torn_down(leaves): pass
        def test_right(): pass
    """,
    "broken": "import no_such_module",
    "elsewhere": """
        pytestmark = []
        def test_without_a_gpu(): raise AssertionError
    """,
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree of its own in the place of the project's."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def write(*names):
        for name in names:
            (tmp_path / "tests" / f"test_{name}.py").write_text(HEAD + dedent(FILES[name]))

    return write


def run(seconds=120.0, quick=False):
    one = section.Section(quick=quick, deadline=time.monotonic() + seconds)
    suite.work(one)
    json.dumps(one.handed_over())
    return one


def counts(failed=0, passed=0, skipped=0, not_run=0):
    return {"failed": failed, "passed": passed, "skipped": skipped, "not run": not_run}


@pytest.mark.slow
def test_what_dies_is_named_and_the_rest_runs(tree, monkeypatch):
    monkeypatch.setattr(suite, "TEST_SECONDS", {True: 25.0, False: 25.0})
    tree("crash", "hang", "sticky", "elsewhere")
    one = run()
    assert one.failures == [
        "tests/test_crash.py::test_dies: its process ended with signal SIGSEGV",
        "tests/test_crash.py::test_ends: its process ended with exit code 3",
        "tests/test_hang.py::test_hangs: no end after 25 s; its process was killed",
        "tests/test_sticky.py::test_out_of_memory: "
        "cupy_backends.cuda.api.runtime.CUDARuntimeError: "
        "cudaErrorMemoryAllocation: out of memory",
        "tests/test_sticky.py::test_illegal_address: ValueError: no result "
        "(a sticky error: the process was given up)",
    ]
    assert one.unfinished == ""
    assert one.summary == "5 failed, 5 passed"
    assert one.data["counts"] == counts(5, 5)
    files = one.data["files"]
    processes = {name: found.pop("processes") for name, found in files.items()}
    assert processes == {
        "tests/test_crash.py": 3,
        "tests/test_hang.py": 2,
        "tests/test_sticky.py": 2,
    }
    assert all(found.pop("seconds") > 0 for found in files.values())
    assert list(files.values()) == [counts(2, 3), counts(1, 1), counts(2, 1)]


def test_outcomes_of_all_kinds(tree):
    tree("outcomes", "broken")
    one = run()
    assert one.summary == "3 failed, 1 passed, 1 skipped"
    broken, *others = one.failures
    assert broken.startswith("tests/test_broken.py: ")
    assert broken.endswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert others == [
        "tests/test_outcomes.py::test_wrong: assert 1 == 2",
        "tests/test_outcomes.py::test_set_up: KeyError: 'of a fixture'",
        "tests/test_outcomes.py::test_torn_down: KeyError: 'afterwards'",
    ]


@pytest.mark.slow
def test_time_that_is_over_is_no_failure_and_what_is_left_is_named(tree):
    tree("hang", "outcomes")
    one = run(seconds=12)
    assert one.failures == []
    assert one.unfinished == (
        "tests were not run: tests/test_hang.py (2), tests/test_outcomes.py (5)"
    )
    assert one.summary == "7 not run"
    assert list(one.data["files"]) == ["tests/test_hang.py"]
    assert one.data["counts"] == counts(not_run=7)


def test_no_time_at_all_is_no_failure(tree):
    tree("outcomes")
    one = run(seconds=0)
    assert (one.failures, one.unfinished) == ([], "no time to collect the tests")


def test_where_nothing_is_marked_the_run_fails(tree):
    tree("elsewhere")
    assert run().failures == ["no test was selected"]


@pytest.mark.slow
def test_a_crash_while_collecting_leaves_the_other_files(tree, tmp_path):
    tree("outcomes")
    (tmp_path / "tests" / "test_abort.py").write_text("import os\nos.abort()")
    one = run()
    assert one.summary == "3 failed, 1 passed, 1 skipped"
    assert one.failures[:2] == [
        "collecting: its process ended with signal SIGABRT",
        "tests/test_abort.py: its process ended with signal SIGABRT",
    ]


@pytest.mark.slow
def test_a_quick_run_takes_one_dtype(tree, tmp_path):
    (tmp_path / "tests" / "test_dtypes.py").write_text(
        "import pytest\n"
        "@pytest.mark.gpu\n"
        "@pytest.mark.parametrize('dtype', ['float32', 'float16'])\n"
        "def test_values(dtype): pass\n"
    )
    assert run(quick=True).summary == "1 passed"
