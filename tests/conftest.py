"""The backends that one test body runs on, and the rule that a test is not skipped in CI."""

import ctypes
import functools
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import hypothesis
import numpy as np
import pytest

from gpugrad import calls, dispatch
from gpugrad.planning import tiles
from gpugrad.planning.configurations import FUSED
from gpugrad.testing.algorithms import (
    by_mma,
    by_multiply_adds,
    fused_path,
    fused_path_from_planes,
    on_tensor_cores,
    products_by,
)
from tests import driver
from tests.emulator import MissingTool, toolchain
from tests.support.cases import LAYOUTS, WHOLE_ELEMENTS
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.first_tier import mark_slow

hypothesis.settings.register_profile(
    "gpugrad",
    deadline=None,  # a kernel compiles in its first example
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("gpugrad")

ALLOWED_SKIPS = ("needs a GPU", "needs PyTorch", "needs JAX", "needs autograd")


CUPY_DTYPES = ("float64", "float32", "float16", "bfloat16", "bool", "int32", "uint8", "complex64")


class Backend:
    """NumPy arrays computed by NumPy: how tests bring arrays in, call functions, and look."""

    name = "numpy"
    device = "cpu"
    layouts = tuple(LAYOUTS)  # of operands

    def array(self, array: np.ndarray) -> Any:
        """Bring an array with its strides and alignment; what cannot be brought, as it is."""
        return array

    def numpy(self, array: Any) -> Any:
        return array

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args, **{"device": self.device} | options)


class EmulatedBackend(Backend):
    """NumPy arrays computed by the kernels, which run on the CPU."""

    name = "emulator"
    device = "gpu"


class EmulatedTensorCores(EmulatedBackend):
    """The same, and products on tensor cores wherever there is a way, by mma.sync.

    tests/gpu/test_warpgroups.py calls the functions with products by wgmma.
    """

    name = "emulator-tensor-cores"


class EmulatedFused(EmulatedBackend):
    """The same, and the fused backward kernels wherever there is one."""

    name = "emulator-fused"


class EmulatedFusedFromPlanes(EmulatedBackend):
    """The same on tensor cores, from three planes of float32."""

    name = "emulator-fused-planes"


class CupyBackend(Backend):
    """CuPy arrays computed by the kernels on a GPU."""

    name = "cupy"
    device = "auto"
    layouts = WHOLE_ELEMENTS

    def array(self, array: np.ndarray) -> Any:
        import cupy

        if not isinstance(array, np.ndarray) or np.ma.isMaskedArray(array):
            return array
        if array.dtype.name not in CUPY_DTYPES or not array.dtype.isnative:
            return array
        if not array.size:
            return cupy.empty(array.shape, array.dtype)
        low, high = np.lib.array_utils.byte_bounds(array)
        shift = low % 16
        memory = np.zeros(shift + high - low, np.uint8)
        memory[shift:] = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
        first = shift + array.ctypes.data - low
        return cupy.ndarray(
            array.shape, array.dtype, cupy.asarray(memory).data + first, array.strides
        )

    def numpy(self, array: Any) -> Any:
        import cupy

        assert isinstance(array, cupy.ndarray)
        return array.get()


class CupyTensorCores(CupyBackend):
    """The same, and products on tensor cores wherever there is a way."""

    name = "cupy-tensor-cores"


class CupyFused(CupyBackend):
    """The same, and the fused backward kernels wherever there is one."""

    name = "cupy-fused"


class CupyFusedFromPlanes(CupyBackend):
    """The same on tensor cores, from three planes of float32."""

    name = "cupy-fused-planes"


ON_EMULATOR = (
    *(EmulatedBackend, EmulatedTensorCores),
    *(EmulatedFused, EmulatedFusedFromPlanes),
)
ON_CUPY = (CupyBackend, CupyTensorCores, CupyFused, CupyFusedFromPlanes)
BACKENDS = {one.name: one for one in (Backend, *ON_EMULATOR, *ON_CUPY)}
FUSED_DTYPES = {dtype for dtype, _ in FUSED}
ON_A_GPU = not driver.is_installed() and dispatch.gpu_missing() is None
NO_DRIVER: Exception | None = None  # why none can be played here
if not ON_A_GPU:
    try:
        driver.install()
        driver.set_devices(0)
    except Exception as problem:
        NO_DRIVER = problem
MAX_UNUSED_BYTES = 1 << 24  # that CuPy's pool keeps from test to test
# Files that take minutes, which workers begin with: of the few tests of the gate each is long.
LONGEST = ("test_compile.py", "test_mutants.py", "test_runtime_mutants.py")
GPUS = ("cupy", "cuda", "gpu")  # how the names of backends and devices begin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `backend` on NumPy, on emulated kernels, and with CuPy.

    Tests marked as `products` run once more with the products on tensor cores, and those marked as
    `layers` with the fused backward kernels.
    """
    if "backend" in metafunc.fixturenames:
        devices = ["emulator", "cupy"]
        names = ["numpy", *devices]
        if metafunc.definition.get_closest_marker("products"):
            names += [f"{name}-tensor-cores" for name in devices]
        if (layers := metafunc.definition.get_closest_marker("layers")) is not None:
            names += [f"{name}-fused" for name in devices]
            if layers.kwargs.get("planes", True):
                names += [f"{name}-fused-planes" for name in devices]
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture(autouse=True)
def nothing_remembered_of_other_tests() -> None:
    """Have every test plan its calls itself: many change what decides."""
    calls.cache.clear()


def needs_gpu(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test that runs on a GPU and nowhere else."""
    return pytest.mark.gpu(pytest.mark.skipif(not ON_A_GPU, reason="needs a GPU")(test))


def needs_compiler() -> None:
    """Raise MissingTool where nothing compiles kernels for the host."""
    toolchain.compiler()
    toolchain.cuda_include_folders()


@functools.cache
def emulated_runtime() -> EmulatorRuntime:
    return EmulatorRuntime()


def give_back_unused_memory() -> None:
    """Empty CuPy's pool where it has kept much: device memory is this process's own."""
    pool = import_module("cupy").get_default_memory_pool()
    if pool.free_bytes() > MAX_UNUSED_BYTES:
        pool.free_all_blocks()


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine with GPUs: where there is none, CuPy runs on the played driver.

    What no stream or event orders is done in an order of the test's own.
    """
    if ON_A_GPU:
        yield
        return
    if NO_DRIVER is not None:
        raise NO_DRIVER
    driver.refusals()
    driver.set_order(driver.Order.RANDOM, zlib.crc32(request.node.nodeid.encode()))
    try:
        with driver.visible():
            dispatch._gpu_missing.cache_clear()
            yield
            driver.finish()
            give_back_unused_memory()
    finally:
        driver.recover()
        dispatch._gpu_missing.cache_clear()


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    name, plan = request.param, import_module("gpugrad.planning.choice")
    if name.startswith("emulator"):
        needs_compiler()
        monkeypatch.setattr(dispatch, "runtime", emulated_runtime)
        monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    elif name.startswith("cupy"):
        request.getfixturevalue("gpu")
    exchanged: dict[str, Any] = {}
    if name.endswith("tensor-cores"):
        exchanged = products_by(on_tensor_cores if name.startswith("cupy") else by_mma)
    elif name.endswith("fused"):
        exchanged = products_by(fused_path, fused=True)
    elif name.endswith("fused-planes"):
        exchanged = products_by(fused_path_from_planes, fused=True)
    elif name == "emulator":
        exchanged = products_by(by_multiply_adds)
    for attribute, value in exchanged.items():
        monkeypatch.setattr(plan, attribute, value)
    return BACKENDS[name]()


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan tiles of 128 for results that are small enough to be emulated."""
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 1)


@pytest.fixture
def same_tensors() -> None:
    """Have PyTorch draw the same numbers in every test."""
    import_module("torch").manual_seed(0)


@pytest.fixture
def through_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no layer of PyTorch's tensors left to PyTorch because it is small."""
    monkeypatch.setattr(import_module("gpugrad.torch.small_layers"), "FEW", 0)


@pytest.fixture(params=["operators", "pytorch"])
def way(request: pytest.FixtureRequest) -> str:
    """Through gpugrad's operators, and through what small layers are left to."""
    if request.param == "operators":
        request.getfixturevalue("through_operators")
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="all but a GPU has to be there")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is to run aside
        signal.signal(signal.SIGINT, signal.default_int_handler)  # for tests' own processes
    if hasattr(config.option, "loadscopereorder"):  # by pytest-xdist, the files of most tests first
        config.option.loadscopereorder = False
    config.addinivalue_line("markers", "kernels: what kernels promise and a BLAS does not")
    config.addinivalue_line("markers", "products: on tensor cores too")
    config.addinivalue_line("markers", "layers: the fused backward kernels too")
    config.addinivalue_line("markers", "host: what CuPy's arrays cannot be")
    config.addinivalue_line("markers", "gpu: runs on a GPU where there is one")
    config.addinivalue_line("markers", "slow: not in the first tier, which README's command runs")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if _meant_for_its_backend(item)]
    mark_slow(items)
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        named = [params.get(name) for name in ("backend", "device", "machine")]
        on_one = any(isinstance(one, str) and one.startswith(GPUS) for one in named)
        if on_one or "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")
        reasons = [mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")]
        if "needs a GPU" in reasons and item.get_closest_marker("gpu") is None:
            raise pytest.UsageError(f"{item.nodeid} needs a GPU and has not the marker `gpu`")


def _meant_for_its_backend(item: pytest.Item) -> bool:
    """Keep big cases from the emulator, and what a mark excludes from the others."""
    given = getattr(item, "callspec", None)
    name, _, way = (given.params.get("backend") or "").partition("-") if given else ("", "", "")
    if given and way.startswith("fused"):
        op = given.params.get("name", "dense_sigmoid_backward")
        dtype = given.params.get("dtype", "float32")
        dtypes = FUSED_DTYPES if way == "fused" else {"float32"}
        if op != "dense_sigmoid_backward" or dtype not in dtypes:
            return False  # nothing but what the others compute
    emulated = name == "emulator" or (name == "cupy" and not ON_A_GPU)
    if emulated and any(getattr(value, "big", False) for value in given.params.values()):
        return False
    if name == "cupy" and given.params.get("layout", "C") not in ("C", *WHOLE_ELEMENTS):
        return False
    excluding = {"numpy": "kernels", "cupy": "host"}.get(name)
    return excluding is None or item.get_closest_marker(excluding) is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Skip what the machine has no tools for, by their names."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, MissingTool):
        report.outcome = "skipped"
        report.longrepr = (*item.location[:2], f"Skipped: {call.excinfo.value}")
    if report.failed and driver.is_installed() and (said := driver.refusals()):
        report.sections.append(("the played driver refused", "\n".join(said)))
    return _judge_skip(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    return _judge_skip((yield), collector.config)


def _judge_skip(report: Any, config: pytest.Config) -> Any:
    """Turn a skip in CI into a failure, unless it is for what a CPU-only machine may lack."""
    no_skips = config.getoption("no_skips")
    allowed = ALLOWED_SKIPS[:1] if no_skips else ALLOWED_SKIPS
    if report.skipped and not hasattr(report, "wasxfail") and (os.environ.get("CI") or no_skips):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(allowed):
            report.outcome, report.longrepr = "failed", f"skipped: {reason}"
    return report
