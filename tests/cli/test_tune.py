"""gpugrad tune: what it measures, writes, says and survives; what info tells of it."""

import dataclasses
import errno
import functools
import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch, host
from gpugrad.cli import cpu_rates, gpu_rates, main
from gpugrad.gpu import bind, cache
from gpugrad.operations import OPERATIONS
from gpugrad.planning import cpu_costs, machine_profile
from gpugrad.planning.choice import passes, steps_of
from gpugrad.planning.gpu_costs import Copy, product_work
from gpugrad.planning.problem import ITEMSIZE
from tests.cli.commands import environment, expect_one_line

TUNE = ["tune", "--seconds", "1"]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "profile.json"


@pytest.fixture
def quick(monkeypatch, no_gpu):
    """One small call of each kind in place of many: the command is tested, not the rates."""
    small = tuple((op, (64, 32, 16)) for op in dict(cpu_rates.TOGETHER))
    monkeypatch.setattr(cpu_rates, "TOGETHER", small)
    monkeypatch.setattr(cpu_rates, "LARGE", ())
    monkeypatch.setattr(cpu_rates, "MIN_ROUNDS", 1)
    measure = cpu_rates.measure
    monkeypatch.setattr(cpu_rates, "measure", lambda seconds: measure(0))


# ---- the CPU


@pytest.mark.usefixtures("quick")
def test_tune_writes_a_profile_that_is_used(file, capsys):
    before = gpugrad.plan("sigmoid", np.zeros(10**6)).predicted_seconds
    assert main([*TUNE, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["command"], told["profile"], told["gpu"]) == ("tune", str(file), None)
    rates = machine_profile.read(file, "cpu").rates
    assert dataclasses.asdict(rates) == told["cpu"]
    assert set(rates.unit) == set(ITEMSIZE)
    assert gpugrad.plan("sigmoid", np.zeros(10**6)).predicted_seconds == before  # read once
    code = (
        "import gpugrad, numpy; from gpugrad.planning import machine_profile as p;"
        "print(gpugrad.plan('sigmoid', numpy.zeros(10**6)).predicted_seconds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert float(done.stdout) != before
    assert not done.stderr


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("columns", [40, 80])
def test_tune_tells_what_it_found(columns, file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(host, "blas_hint", lambda used: "try another one")
    assert main(TUNE) == 0
    out, err = capsys.readouterr()
    assert not err
    for part in ("CPU, ", *ITEMSIZE, "Hint: try another one.", "The smallest call takes"):
        assert part in " ".join(out.split())
    assert f"The profile is in {file}\n" in out
    lines = [line for line in out.splitlines() if str(file) not in line]
    assert max(map(len, lines)) <= columns


def test_dtypes_that_are_missing_have_the_rates_of_another(quick, monkeypatch, file):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert main(TUNE) == 0
    unit = machine_profile.read(file, "cpu").rates.unit
    assert unit["bfloat16"] == unit["float16"]


@pytest.mark.slow
@pytest.mark.parametrize("without", ["", "memory", "moved"])
def test_the_rates_are_those_that_explain_the_times(without):
    """Times made from rates give the rates back, but for the weight that the defaults have."""
    made = {"product": 3e-11, "moved": 2e-10, "sum": 1e-10, "gradient": 8e-10}
    made |= {"sigmoid": 1e-9, "memory": 1e-10}
    if without:
        made[without] = 1e-15
    cases = cpu_rates.Measured("float32").together
    call = dict.fromkeys(OPERATIONS, 1e-5)
    for case in cases:
        case.seconds = 1e-5 + cpu_rates._work_seconds(case, made)
    found = cpu_rates._units(cases, call, 2)
    for case in cases:
        again = 1e-5 + cpu_rates._work_seconds(case, found)
        assert again == pytest.approx(case.seconds, rel=0.15)
    for kind, seconds in made.items():
        assert found[kind] > 0
        if kind != without:
            assert found[kind] == pytest.approx(seconds, rel=0.3)


def test_noise_leaves_no_rate_without_sense():
    """Times that are off by a factor of two at random do not move a rate by more than four.

    But for what products move, which is never most of a time: that stays above its least share.
    """
    made = cpu_costs.default_rates(2).unit["float32"]
    cases = cpu_rates.Measured("float32").together
    call = dict.fromkeys(OPERATIONS, 1e-5)
    random = np.random.default_rng(0)
    for _ in range(200):
        for case in cases:
            noise = 2 ** random.uniform(0, 1)  # only ever too slow
            case.seconds = 1e-5 + noise * cpu_rates._work_seconds(case, made)
        found = cpu_rates._units(cases, call, 2)
        for kind, seconds in made.items():
            assert (0.1 if kind == "moved" else 0.25) < found[kind] / seconds < 4


# ---- what goes wrong


def interrupted(seconds):
    yield "float64"
    raise KeyboardInterrupt


def no_space(handle):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_interrupted_tune_leaves_the_old_profile(file, capsys, no_gpu, monkeypatch):
    file.parent.mkdir()
    file.write_text("the old one")
    monkeypatch.setattr(cpu_rates, "measure", interrupted)
    assert main(TUNE) == 130
    assert file.read_text() == "the old one"
    assert list(file.parent.iterdir()) == [file]
    expect_one_line(capsys.readouterr().err, "interrupted")


@pytest.mark.slow
def test_ctrl_c(file):
    file.parent.mkdir()
    file.write_text("the old one")
    with subprocess.Popen(
        [sys.executable, "-m", "gpugrad", "tune", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(FORCE_COLOR="1"),
    ) as process:
        seen = b""
        while b"float64" not in seen:
            seen += process.stderr.read(1)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().endswith("gpugrad tune: interrupted\n")
    assert b"Traceback" not in out + err
    assert file.read_text() == "the old one"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_the_old_profile(file, capsys, monkeypatch):
    assert main(TUNE) == 0
    before = file.read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(os, "fsync", no_space)
    assert main(TUNE) == 1
    out, err = capsys.readouterr()
    assert not out
    expect_one_line(err, "No space left on device", "GPUGRAD_CACHE_DIR", "as it was")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_measured(
    file, capsys, no_gpu, monkeypatch
):
    monkeypatch.setattr(cpu_rates, "measure", lambda *_: pytest.fail("it was measured"))
    file.parent.touch()
    assert main(TUNE) == 2
    expect_one_line(capsys.readouterr().err, "the profile cannot be kept", "GPUGRAD_CACHE_DIR")
    file.parent.unlink()
    file.mkdir(parents=True)
    assert main(TUNE) == 2
    expect_one_line(capsys.readouterr().err, "is a directory")


def test_without_a_home_directory(capsys, no_gpu, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(machine_profile, "path", homeless)
    assert main(TUNE) == 2
    expect_one_line(capsys.readouterr().err, "Could not determine home directory")


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "x"])
def test_bad_seconds(seconds, capsys):
    assert main(["tune", "--seconds", seconds]) == 2
    expect_one_line(capsys.readouterr().err, repr(seconds))


def test_a_gpu_that_is_missing_is_named(capsys, no_gpu):
    assert main(["tune", "--device", "gpu"]) == 2
    expect_one_line(capsys.readouterr().err, "--device is 'gpu'", "no NVIDIA driver")


# ---- a GPU


COPIES = {
    "to device": Copy(2e-5, 1e10),
    "to host": Copy(3e-5, 5e9),
    "pinned to device": Copy(1e-5, 5e10),
    "pinned to host": Copy(1.5e-5, 4e10),
}
CALL, LAUNCH, BANDWIDTH, MULTIPLY_ADDS = 5e-5, 4e-6, 1e9, 7e11  # small work counts on it


class Recorded(gpu_rates.Clock):
    """Runs the work once, and gives the time that a machine of known rates would take."""

    def __init__(self):
        self.names = []

    def until_done(self, name, work):
        work()
        kind, _, what = name.rpartition(" ")
        if kind == "call":
            return CALL + LAUNCH * {"sigmoid": 1, "matmul_backward": 2}[what]
        size, copy = int(what), COPIES[kind]
        return copy.latency + (size - gpu_rates.COPY_BYTES[0]) / copy.bandwidth

    def on_device(self, name, work):
        work()
        self.names.append(name)
        if name == "pass":
            return LAUNCH + 3 * gpu_rates.PASS_BYTES / BANDWIDTH
        plan = work.args[1]
        ((_, step),) = plan.steps
        one = gpu_rates.Problem(plan.op, step.rows, step.columns, step.contraction,
                                str(work.args[2]["dy"].dtype), ("x",))  # fmt: skip
        found = passes(one, plan.algorithm, step.planes)
        assert plan.steps == steps_of(one, plan.algorithm, step.planes)
        seconds = sum(LAUNCH + traffic / BANDWIDTH for traffic in found) + LAUNCH
        return seconds + product_work(step, facts_of_gpu().sm_count) / MULTIPLY_ADDS


@pytest.fixture
def small_gpu(gpu, large_tiles, monkeypatch):
    """A GPU, and work that the emulator can do."""
    with pytest.MonkeyPatch.context() as usual:
        usual.delenv("GPUGRAD_CACHE_DIR")
        kernels = cache.folder()
    monkeypatch.setattr(cache, "folder", lambda: kernels)  # whose kernels are compiled already
    monkeypatch.setattr(gpu_rates, "bind", bound_and_told)
    monkeypatch.setattr(gpu_rates, "SIDES", (65, 16))
    monkeypatch.setattr(gpu_rates, "COPY_BYTES", (64, 4096, 65536))
    monkeypatch.setattr(gpu_rates, "PASS_BYTES", 1 << 12)


def bound_and_told(runtime, plan, inputs, outputs):
    """Return what computes a call, with the arguments that it is bound by."""
    work = bind.bind(runtime, plan, inputs, outputs)
    return functools.partial(lambda *_: work(), runtime, plan, inputs)


def facts_of_gpu():
    return dispatch.runtime().facts(None)


@pytest.mark.slow
@pytest.mark.usefixtures("small_gpu")
def test_the_gpu_is_measured():
    clock = Recorded()
    *_, rates = gpu_rates.measure(1000, clock)
    assert rates.call == pytest.approx(CALL)
    assert rates.launch == pytest.approx(LAUNCH)
    assert rates.bandwidth == pytest.approx(BANDWIDTH)
    for name, copy in COPIES.items():
        found = getattr(rates, name.replace(" ", "_"))
        assert found.latency == pytest.approx(copy.latency)
        assert found.bandwidth == pytest.approx(copy.bandwidth)
    names = [name for name, _ in rates.multiply_adds]
    assert set(names) == set(clock.names[1:])
    assert len(names) == len(set(names)) >= 8
    kinds = {name.partition(",")[0] for name in names}
    assert kinds == {
        *("float32 ffma", "16-bit ffma", "float64 ffma", "float64 dmma", "16-bit wgmma"),
        *(f"float32 wgmma {count} plane{'s' * (count > 1)}" for count in (2, 1)),
    }
    for _, rate in rates.multiply_adds:
        assert rate == pytest.approx(MULTIPLY_ADDS)


@pytest.mark.usefixtures("small_gpu")
def test_kernels_that_compete_are_measured_all_or_none(monkeypatch):
    """The time is over after the first kernel of the second dtype."""
    clock, now = Recorded(), [0.0]
    monkeypatch.setattr(gpu_rates.time, "perf_counter", lambda: now[0])
    measure_one = clock.on_device

    def on_device(name, work):
        now[0] += name.startswith("16-bit")
        return measure_one(name, work)

    monkeypatch.setattr(clock, "on_device", on_device)
    *_, rates = gpu_rates.measure(1, clock)
    assert {name.split()[0] for name, _ in rates.multiply_adds} == {"float32"}
    assert clock.names[-1].startswith("16-bit ffma")


@pytest.mark.usefixtures("small_gpu")
def test_kernels_that_there_is_no_time_for_are_left_out():
    *_, rates = gpu_rates.measure(0, Recorded())
    assert rates.multiply_adds == ()
    assert rates.bandwidth == pytest.approx(BANDWIDTH)


def test_tune_on_a_gpu(small_gpu, file, capsys, monkeypatch):
    monkeypatch.setattr(gpu_rates, "Clock", Recorded)
    assert main([*TUNE, "--device", "gpu"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in (
        f"GPU {facts_of_gpu().name}",
        "each kernel 4.00 µs",
        "10.0 GB/s after 20.0 µs, pinned 50.0 GB/s",
    ):
        assert part in out
    assert "float64 dmma, tile" in out
    machine_profile.clear_cache()  # another process
    facts = machine_profile.with_rates(facts_of_gpu())
    assert facts.measured == machine_profile.read(file, "gpu", facts_of_gpu()).rates
    assert dict(facts.measured.multiply_adds)
    assert machine_profile.read(file, "cpu") is None
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["profile"]
    assert told["gpu"]["measured"]
    assert not told["cpu"]["measured"]


def test_a_gpu_that_fails_leaves_the_rates_of_the_cpu(quick, small_gpu, file, capsys, monkeypatch):
    class Broken(Recorded):
        def on_device(self, name, work):
            raise RuntimeError("the device has fallen off the bus")

    monkeypatch.setattr(gpu_rates, "Clock", Broken)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    assert main(TUNE) == 1
    expect_one_line(capsys.readouterr().err, "RuntimeError: the device has fallen off the bus")
    assert machine_profile.read(file, "cpu").rates.call
    assert machine_profile.read(file, "gpu", facts_of_gpu()) is None


@pytest.mark.usefixtures("small_gpu")
def test_the_clock():
    """Its own code."""
    clock, calls = gpu_rates.Clock(), []
    clock.sample_seconds = 1e-4
    for seconds in (clock.on_device, clock.until_done):
        calls.clear()
        assert 0 < seconds("a name", lambda: calls.append(1)) < 0.1
        assert len(calls) > clock.samples


# ---- info


def test_info_tells_of_the_profile(quick, file, capsys):
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "default rates (not measured); gpugrad tune" in out
    assert main(TUNE) == 0
    capsys.readouterr()
    assert main(["info"]) == 0
    assert "rates of the CPU measured 20" in " ".join(capsys.readouterr().out.split())
    document = json.loads(file.read_bytes())
    document["cpu"]["key"]["NumPy"] = "1.0"
    file.write_text(json.dumps(document))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["profile"]
    assert told["path"] == str(file)
    assert told["cpu"]["measured"] is None
    assert "NumPy is" in told["cpu"]["reason"]


CPU_INFO = "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2{} sse\n"
HASWELL = host.Blas("openblas", "0.3.31", "Haswell", 2)


@pytest.mark.parametrize(
    ("flags", "blas", "coretype", "expected"),
    [
        (" avx512f", HASWELL, "", "uses its Haswell kernels: try OPENBLAS_CORETYPE=SkylakeX"),
        (" avx512f", HASWELL._replace(architecture="Zen"), "", "uses its Zen kernels: try"),
        (" avx512f", HASWELL, "Haswell", "because OPENBLAS_CORETYPE is 'Haswell': try"),
        ("", HASWELL, "", None),
        (" avx512f", HASWELL._replace(architecture="SkylakeX"), "", None),
        (" avx512f", HASWELL._replace(library="mkl"), "", None),
        (" avx512f", None, "", None),
    ],
)
def test_the_hint_of_faster_kernels(flags, blas, coretype, expected, tmp_path, monkeypatch, capsys):
    info = tmp_path / "cpuinfo"
    info.write_text(CPU_INFO.format(flags))
    monkeypatch.setattr(host, "CPU_INFO", info)
    monkeypatch.setattr(host, "blas", lambda: blas)
    monkeypatch.setenv("OPENBLAS_CORETYPE", coretype)
    hint = host.blas_hint(blas)
    assert (hint is None) == (expected is None)
    assert main(["info"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (expected or "A Processor") in out
    assert ("OPENBLAS_CORETYPE" in out) == (expected is not None)


def test_the_blas_is_numpy_s_own(monkeypatch):
    used = host.blas()
    assert used is not None
    assert used.threads >= 1
    found = [
        {"user_api": "openmp", "filepath": "/numpy/libgomp.so"},
        {"user_api": "blas", "filepath": "/scipy.libs/b.so", "internal_api": "openblas",
         "version": "1", "architecture": "Zen", "num_threads": 3},
        {"user_api": "blas", "filepath": "/numpy.libs/a.so", "internal_api": "mkl",
         "version": None, "num_threads": 4},
    ]  # fmt: skip
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: found)
    assert host.blas() == ("mkl", "unknown", "", 4)
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: found[:1])
    assert host.blas() is None
    monkeypatch.setattr(host, "CPU_INFO", host.CPU_INFO / "nowhere")
    assert host.processor()
