"""The profile: written whole or not at all, read once, and not used where it is wrong."""

import copy
import errno
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch, host
from gpugrad.planning import cpu_costs, machine_profile
from gpugrad.planning.gpu_costs import DeviceFacts
from tests.planning.profiles import FACTS, MACHINES, gpu_rates, profile

DY = np.broadcast_to(np.float32(0), (1000, 64))
SERVER = profile("server")


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A folder of its own, on a machine that the made-up profiles are of."""
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: "a test says so")
    pretend_to_be("server", monkeypatch)
    machine_profile.clear_cache()
    yield tmp_path / "cache" / "profile.json"
    machine_profile.clear_cache()


def pretend_to_be(machine, monkeypatch):
    keys = {device: profile(machine)[device]["key"] for device in ("cpu", "gpu")}
    monkeypatch.setattr(machine_profile, "cpu_key", lambda: keys["cpu"])
    monkeypatch.setattr(machine_profile, "gpu_key", lambda facts: keys["gpu"])


def write(file, document):
    file.parent.mkdir(exist_ok=True)
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    file.write_bytes(text)


def changed(document, *path_and_value):
    """A copy of a profile with another value at a path."""
    *path, last, value = path_and_value
    result = copy.deepcopy(document)
    place = result
    for name in path:
        place = place[name]
    place[last] = value
    return result


# ---- what is written is read


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_saved_is_read(machine, file, monkeypatch):
    pretend_to_be(machine, monkeypatch)
    rates, facts = cpu_costs.default_rates(3), FACTS[machine]
    assert machine_profile.save(rates, gpu_rates(machine), facts) == file
    assert machine_profile.read(file, "cpu").rates == rates
    assert machine_profile.read(file, "gpu", facts).rates == gpu_rates(machine)
    assert machine_profile.cpu_rates(7) == rates
    assert machine_profile.with_rates(facts).measured == gpu_rates(machine)
    assert [path.name for path in file.parent.iterdir()] == ["profile.json"]


def test_keys_of_this_machine_are_stable_and_complete(monkeypatch):
    monkeypatch.undo()
    key = machine_profile.cpu_key()
    assert key == machine_profile.cpu_key() == json.loads(json.dumps(key))
    assert key["NumPy"] == np.__version__
    assert key["gpugrad"] == gpugrad.__version__
    assert key["cores"] == host.cores()


def test_a_part_that_is_not_measured_stays(file):
    write(file, SERVER)
    machine_profile.save(cpu_costs.default_rates(5), None, None)
    assert machine_profile.read(file, "cpu").rates.workers == 5
    assert machine_profile.read(file, "gpu", FACTS["server"]).rates == gpu_rates("server")


def test_without_a_profile_there_are_round_figures(file):
    assert machine_profile.cpu_rates(3) == cpu_costs.default_rates(3)
    assert machine_profile.with_rates(FACTS["server"]) == FACTS["server"]
    assert not file.parent.exists()


def test_without_a_home_directory_there_are_round_figures(monkeypatch):
    def homeless():
        raise RuntimeError("no home directory")

    monkeypatch.setattr(machine_profile, "path", homeless)
    assert machine_profile.cpu_rates(3) == cpu_costs.default_rates(3)


def test_a_process_reads_a_profile_once(file):
    write(file, SERVER)
    before = machine_profile.cpu_rates(4)
    write(file, changed(SERVER, "cpu", "rates", "speedup", 1.5))
    assert machine_profile.cpu_rates(4) is before
    machine_profile.clear_cache()  # another process
    assert machine_profile.cpu_rates(4).speedup == 1.5


# ---- what is wrong is ignored, and said once


BROKEN = {
    "empty": b"",
    "cut off": json.dumps(SERVER).encode()[:700],
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "null": b"null",
    "too deep": b"[" * 100_000,
    "a long number": b'{"format": ' + b"9" * 10_000 + b"}",
    "no format": {name: part for name, part in SERVER.items() if name != "format"},
    "another format": changed(SERVER, "format", 99),
    "a part that is none": changed(SERVER, "cpu", 3),
    "no key": changed(SERVER, "cpu", "key", None),
    "no rates": changed(SERVER, "cpu", "rates", []),
    "no date": changed(SERVER, "cpu", "measured", 7),
    "no operation": changed(SERVER, "cpu", "rates", "call", {"sigmoid": 1e-5}),
    "no dtype": changed(SERVER, "cpu", "rates", "unit", "float16", None),
    "half a thread": changed(SERVER, "cpu", "rates", "workers", 0.5),
    "slower together": changed(SERVER, "cpu", "rates", "speedup", 0.5),
    **{
        f"a rate of {value!r:.20}": changed(
            SERVER, "cpu", "rates", "unit", "float32", "product", value
        )
        for value in (float("nan"), float("inf"), 0, -1e-9, "fast", True, None, [1], 10**400)
    },
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_profile_is_ignored_with_one_warning(what, file):
    write(file, BROKEN[what])
    with pytest.warns(RuntimeWarning, match=r"profile.json is ignored: .*gpugrad tune") as caught:
        plan = gpugrad.plan("bias_backward", DY)
    assert len(caught) == 1
    assert 0 < plan.predicted_seconds < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gpugrad.plan("bias_backward", DY).predicted_seconds == plan.predicted_seconds
    rates = cpu_costs.default_rates(4)
    machine_profile.save(rates, None, None)  # mends it
    assert machine_profile.read(file, "cpu").rates == rates


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("value", ["another", None])
def test_a_foreign_profile_is_ignored(device, value, file):
    facts = FACTS["server"] if device == "gpu" else None
    for name in SERVER[device]["key"]:
        write(file, changed(SERVER, device, "key", name, value))
        with pytest.raises(machine_profile.Rejected, match=f"of another machine.*{name}"):
            machine_profile.read(file, device, facts)
    write(file, changed(SERVER, device, "key", {}))
    with pytest.raises(machine_profile.Rejected, match="of another machine"):
        machine_profile.read(file, device, facts)
    write(file, changed(SERVER, device, "key", "something", 1))
    with pytest.raises(machine_profile.Rejected, match="something"):
        machine_profile.read(file, device, facts)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("launch", 0),
        ("bandwidth", float("nan")),
        ("to_device", 3),
        ("pinned_to_host", {"latency": 1e-5, "bandwidth": -1}),
        ("multiply_adds", {"float32 ffma, tile 64": None}),
        ("multiply_adds", None),
    ],
)
def test_rates_of_a_gpu_that_make_no_sense(name, value, file):
    write(file, changed(SERVER, "gpu", "rates", name, value))
    with pytest.raises(machine_profile.Rejected, match="damaged"):
        machine_profile.read(file, "gpu", FACTS["server"])


def test_a_profile_of_another_machine_is_reported_once_for_cpu_and_gpu(file, monkeypatch):
    class Runtime:
        def facts(self, device):
            return FACTS["desktop"]

    write(file, SERVER)
    pretend_to_be("desktop", monkeypatch)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    monkeypatch.setattr(dispatch, "runtime", Runtime)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for device in ("auto", "cpu", "gpu") * 2:
            gpugrad.plan("bias_backward", DY, device=device)
    assert [one.category for one in caught] == [RuntimeWarning]
    assert "profile.json is ignored: it is of another machine" in str(caught[0].message)


def test_a_profile_that_cannot_be_read(file):
    file.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="it cannot be read") as caught:
        gpugrad.plan("bias_backward", DY)
    assert len(caught) == 1


# ---- readers


def test_a_call_on_the_cpu_reads_no_file(monkeypatch):
    monkeypatch.setattr(machine_profile, "path", lambda: pytest.fail("the profile was asked for"))
    for device in ("auto", "cpu"):
        gpugrad.sigmoid(np.zeros(3), device=device)
    monkeypatch.setenv("GPUGRAD_DEVICE", "cpu")
    gpugrad.sigmoid(np.zeros(3))
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: pytest.fail("a GPU was asked for"))
    gpugrad.sigmoid(np.zeros(3))


def test_import_does_not_load_the_profile():
    code = "import gpugrad, sys; sys.exit('gpugrad.planning.machine_profile' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(gpugrad.__file__).parents[1])


# ---- what goes wrong while it is written


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt]
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_profile_is_written_whole_or_not_at_all(error, where, file, monkeypatch):
    write(file, SERVER)

    def fail(*_):
        raise error

    owner = {"fsync": os, "replace": Path}[where]
    monkeypatch.setattr(owner, where, fail)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        machine_profile.save(cpu_costs.default_rates(5), None, None)
    assert json.loads(file.read_bytes()) == SERVER
    assert [path.name for path in file.parent.iterdir()] == ["profile.json"]


def test_what_cannot_be_written_is_known_beforehand(file, tmp_path, monkeypatch):
    assert machine_profile.check_writable() == file
    assert list(file.parent.iterdir()) == []
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        machine_profile.check_writable()
    (tmp_path / "a file").touch()
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "a file" / "cache"))
    with pytest.raises(NotADirectoryError):
        machine_profile.check_writable()


def test_two_that_write_at_once(file):
    """Each leaves a whole file; one of them is there in the end."""
    read = []

    def save(workers):
        for _ in range(20):
            machine_profile.save(cpu_costs.default_rates(workers), None, None)
            read.append(machine_profile.read(file, "cpu").rates)

    threads = [threading.Thread(target=save, args=(workers,)) for workers in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 80
    assert all(one == cpu_costs.default_rates(one.workers) for one in read)
    assert [path.name for path in file.parent.iterdir()] == ["profile.json"]


# ---- the key of a GPU


def test_the_key_of_a_gpu(gpu, monkeypatch):
    import cupy

    monkeypatch.undo()
    facts = DeviceFacts("H200", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30)
    assert machine_profile.gpu_key(facts) == {
        "GPU": "H200",
        "compute capability": "9.0",
        "multiprocessors": 132,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "CuPy": cupy.__version__,
        "gpugrad": gpugrad.__version__,
    }
