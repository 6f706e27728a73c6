"""The marker `gpu`, by which a run on a GPU chooses its tests: no test of a GPU is without it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLLECT = """
import json, sys, pytest
from gpugrad import _dispatch
from gpugrad.gpu.cupy_runtime import CupyRuntime
from tests.emulator_runtime import FACTS

if sys.argv[1] == "with":
    _dispatch.gpu_missing = lambda: None
    CupyRuntime.facts = lambda *_: FACTS

def looks(item):  # into what tells of a GPU
    known = item.function.__globals__
    names = {name for name in item.function.__code__.co_names if name in known}
    lists = [known[one] for one in names if isinstance(known[one], (list, tuple))]
    return "ON_A_GPU" in names or any("gpu" in one or "cuda" in one for one in lists)

class Plugin:
    def pytest_collection_finish(self, session):
        for item in session.items:
            reasons = [one.kwargs.get("reason") for one in item.iter_markers("skipif")]
            marked = item.get_closest_marker("gpu") is not None
            asks = "needs a GPU" in reasons or looks(item)
            print("found", json.dumps([item.nodeid, marked, asks]))

options = ["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"]
sys.exit(pytest.main(options, plugins=[Plugin()]))
"""


def collecting(gpu):
    """Start a process that collects all tests as if there were a GPU, or as if there were none."""
    command = [sys.executable, "-c", COLLECT, gpu]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def collected(process):
    out, _ = process.communicate()
    assert process.returncode == 0, out[-2000:]
    lines = [one for one in out.splitlines() if one.startswith("found ")]
    rows = [json.loads(one.removeprefix("found ")) for one in lines]
    return {test: (marked, asks) for test, marked, asks in rows}


def test_every_test_of_a_gpu_is_marked():
    there, elsewhere = map(collected, [collecting("with"), collecting("without")])
    added = there.keys() - elsewhere.keys()
    assert any("test_sigmoid.py" in test and "cupy" in test for test in added)
    assert any("test_dmma.py" in test and "cupy" in test for test in added)
    asking = {test for test, (_, asks) in there.items() if asks}
    assert any("test_graphs.py" in test for test in asking)
    assert any("test_check.py" in test for test in asking)
    unmarked = {test for test in added | asking if not there[test][0]}
    assert unmarked == set()
    marked = {test for test, (one, _) in there.items() if one}
    assert not [one for one in marked if "numpy" in one.partition("[")[2] or "emulator" in one]
