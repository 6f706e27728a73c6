"""How many threads a call uses: the least of what limits the process, and who says so."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from gpugrad import host
from gpugrad.cpu import threads, workers
from tests.conftest import Backend
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import compute, same_bits

VARIABLES = ("GPUGRAD_NUM_THREADS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT")


@pytest.fixture
def many(monkeypatch):
    """A machine with 64 cores, without limits."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "cores", lambda: 64)
    monkeypatch.setattr(host, "cpu_quota", lambda: None)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    library = SimpleNamespace(internal_api="openblas", threading_layer="pthreads", number=64)
    library.get_num_threads = lambda: library.number
    library.set_num_threads = lambda number: setattr(library, "number", number)
    libraries = threads.Libraries([library])
    monkeypatch.setattr(threads, "libraries", lambda: libraries)
    return library


def test_all_cores_without_limits(many):
    assert threads.number_of_workers() == 64


def test_each_limit_decides(many, monkeypatch):
    def by(number):
        assert threads.number_of_workers() == number
        return [name for name, limit in threads.limits().items() if limit == number]

    many.number = 32
    assert by(32) == ["BLAS"]
    monkeypatch.setenv("OMP_NUM_THREADS", "16,2")
    assert by(16) == ["OMP_NUM_THREADS"]
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    assert by(8) == ["PYTHON_CPU_COUNT"]
    monkeypatch.setattr(host, "cpu_quota", lambda: 4)
    assert by(4) == ["CPU quota"]
    monkeypatch.setattr(host, "cores", lambda: 2)
    assert by(2) == ["affinity"]
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "48")
    assert by(48) == ["GPUGRAD_NUM_THREADS"]


def test_a_count_of_cores_that_python_does_not_know_yet(many, monkeypatch):
    """Python 3.11 and 3.12 ignore the variable."""
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setenv("PYTHON_CPU_COUNT", "3")
    assert threads.limits()["PYTHON_CPU_COUNT"] == 3


@pytest.mark.parametrize("value", ["", "many", "-1"])
def test_a_limit_of_others_that_is_no_number_is_left_to_them(many, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert "OMP_NUM_THREADS" not in threads.limits()


def test_the_own_hold_of_the_blas_is_no_limit(many):
    hold = threads.Hold(threads.libraries())
    hold.take()
    assert (many.number, threads.number_of_workers()) == (1, 64)
    hold.release()


def test_one_thread_of_blis_is_its_default(many):
    many.internal_api, many.number = "blis", 1
    assert threads.number_of_workers() == 64
    many.number = 2
    assert threads.number_of_workers() == 2


def test_no_library_is_no_limit(many, monkeypatch):
    """As of Accelerate, or of the reference BLAS."""
    libraries = threads.Libraries([])
    monkeypatch.setattr(threads, "libraries", lambda: libraries)
    assert threads.number_of_workers() == 64
    threads.on_threads(1, lambda: None)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_workers_than_the_blas_has_threads(monkeypatch, limit):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "cores", lambda: 64)
    monkeypatch.setattr(host, "cpu_quota", lambda: None)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    counts, start = [], workers._start
    monkeypatch.setattr(
        workers, "_start", lambda job, count: counts.append(count) or start(job, count)
    )
    arrays = layer_arrays(Layer((20_000,), 65, 63), "float32")
    expected = compute(Backend(), "dense_sigmoid_backward", arrays)
    counts.clear()
    with ThreadpoolController().limit(limits=limit, user_api="blas"):
        found = compute(Backend(), "dense_sigmoid_backward", arrays)
    assert max(counts, default=0) == limit - 1
    assert all(same_bits(expected[one], found[one]) for one in expected)


# ---- other BLAS libraries, as threadpoolctl describes them


class Recorded:
    """A controller with the attributes of a recorded threadpool_info."""

    def __init__(self, user_api, internal_api, threading_layer, number=4):
        self.user_api, self.internal_api = user_api, internal_api
        if threading_layer is not None:
            self.threading_layer = threading_layer
        self.number = number

    def get_num_threads(self):
        return self.number

    def set_num_threads(self, number):
        self.number = number


@pytest.mark.parametrize(
    ("internal_api", "layer"),
    [
        ("openblas", "pthreads"),
        ("openblas", "openmp"),
        ("mkl", "intel"),
        ("mkl", "gnu"),
        ("blis", "openmp"),
        ("blis", "pthreads"),
        ("flexiblas", None),
    ],
)
def test_each_kind_of_library_is_held_and_given_back(internal_api, layer):
    """By OpenMP's number for each thread where OpenBLAS follows that, else by its own."""
    blas, openmp = Recorded("blas", internal_api, layer), Recorded("openmp", "openmp", None)
    libraries = threads.Libraries([blas], [openmp])
    changed, other = (
        (openmp, blas)
        if layer == "openmp" and internal_api == "openblas"
        else (
            blas,
            openmp,
        )
    )
    hold = threads.Hold(libraries)
    hold.take()
    assert (changed.number, other.number) == (1, 4)
    hold.release()
    assert (changed.number, other.number) == (4, 4)
    hold.take()
    changed.number = 3  # by somebody else
    hold.release()
    assert changed.number == 3


# ---- the quota of a container

QUOTAS = {
    "none": ({"proc/self/cgroup": "0::/\n"}, None),
    "not Linux": ({}, None),
    "version 2": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
    "version 2, unlimited": (
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"},
        None,
    ),
    "less than a core": (
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"},
        1,
    ),
    "nested groups": (
        {
            "proc/self/cgroup": "0::/a/b/c\n",
            "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "600000 100000\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
        },
        3,
    ),
    "the host's path in a container": (
        {"proc/self/cgroup": "0::/docker/0123\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
        2,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a/b\n3:cpuset:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "both versions": (
        {
            "proc/self/cgroup": "4:cpu:/a\n0::/b\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "10000\n",
            "sys/fs/cgroup/unified/b/cpu.max": "900000 100000\n",
        },
        5,
    ),
    "damaged": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many"}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_the_quota_of_control_groups(tmp_path, name):
    files, expected = QUOTAS[name]
    for file, text in files.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert host.cpu_quota(tmp_path) == expected


# ---- what users see


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("OMP_NUM_THREADS", "OMP_NUM_THREADS"), ("GPUGRAD_NUM_THREADS", "GPUGRAD_NUM_THREADS")],
)
def test_info_says_which_limit_decides(variable, expected):
    environment = {name: one for name, one in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-m", "gpugrad", "info", "--json"],
        env=environment | {variable: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    found = found.get("info", found)["cpu"]["threads"]
    assert found["number"] == 1
    assert expected in found["reason"]


def test_bits_do_not_depend_on_limits(monkeypatch):
    arrays = layer_arrays(Layer((4200,), 400, 400), "float32")
    expected = compute(Backend(), "dense_sigmoid_backward", arrays)
    for quota in (1, 3):
        monkeypatch.setattr(host, "cpu_quota", lambda quota=quota: quota)
        found = compute(Backend(), "dense_sigmoid_backward", arrays)
        assert all(np.array_equal(found[one], expected[one]) for one in expected)
