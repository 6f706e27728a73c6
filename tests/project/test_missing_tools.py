"""What a machine lacks that tests need: named, with how it is installed, and in CI a failure."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.emulator import MissingTool, toolchain
from tests.kernels import machine_code

ROOT = Path(__file__).parents[2]
WHEELS = {  # what tests need of each
    "nvidia-cuda-runtime": ("vector_types.h", "cuda_fp16.h", "cuda_bf16.h"),
    "nvidia-cuda-crt": ("crt/host_defines.h",),
    "nvidia-cuda-cccl": ("nv/target",),
}


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder in the place of where wheels are, with what is written into it."""
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    toolchain.cuda_include_folders.cache_clear()

    def write(*names):
        for header in (header for name in names for header in WHEELS[name]):
            path = tmp_path / "cu13" / "include" / header
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    yield write
    toolchain.cuda_include_folders.cache_clear()


@pytest.mark.parametrize("missing", [[one] for one in WHEELS] + [sorted(WHEELS)], ids=", ".join)
def test_headers(wheels, missing):
    wheels(*(WHEELS.keys() - missing))
    with pytest.raises(MissingTool) as caught:
        toolchain.cuda_include_folders()
    assert str(caught.value) == (
        f"the emulator needs {', '.join(missing)} (headers): pip install -e '.[test]'"
    )
    wheels(*missing)
    assert [path.name for path in toolchain.cuda_include_folders()] == ["include"]


def test_the_disassembler(wheels):
    with pytest.raises(MissingTool, match="needs nvidia-cuda-nvdisasm: pip install -e"):
        machine_code.nvdisasm()


KERNEL = '\nextern "C" __global__ void one(int* out) { *out = 1; }\n'
TESTS = f"""
import pytest
from tests import conftest
from tests.emulator import EmulatorError, Module

def test_of_a_kernel():
    Module({KERNEL!r})

def test_that_expects_an_error_of_the_emulator():
    with pytest.raises(EmulatorError):
        Module({KERNEL!r})

@pytest.fixture
def tool():
    conftest.needs_compiler()

def test_that_asks(tool):
    raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "outcome"), [("", "3 skipped in"), ("1", "2 failed, 1 error in")])
def test_without_a_compiler_tests_are_skipped_and_in_ci_they_fail(tmp_path, ci, outcome):
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-rs", "-p", "tests.conftest", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", *options),
            *("-c", os.devnull, "--rootdir", tmp_path, tmp_path),
        ],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    told = "the emulator needs g++, which is not installed: apt-get install g++"
    assert done.stdout.count(f"skipped: {told}") == (3 if ci else 0)
    assert told in done.stdout
