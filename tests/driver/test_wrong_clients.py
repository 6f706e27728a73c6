"""What clients of the driver do wrong, each caught by an error or by wrong bytes."""

import contextlib
import ctypes
import functools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import pytest
from cupy.cuda import runtime

from gpugrad.gpu import cache
from gpugrad.planning.configurations import ELEMENTWISE, WGMMA
from tests import driver
from tests.conftest import ON_A_GPU
from tests.driver import execution, library

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played"),
]


@pytest.fixture(autouse=True)
def the_latest_first(gpu: None) -> None:
    driver.set_order(driver.Order.LATE)


ROOT = Path(__file__).resolve().parents[2]
COUNT = 300  # elements
GLOBAL, OF_THREAD, RELAXED = 0, 1, 2  # modes of captures


@functools.cache
def module(stem: str, *defines: str, arch: str = "sm_90") -> Any:
    return cupy.RawModule(path=str(cache.load(stem, defines, arch).path))


def sigmoid() -> Any:
    return module("sigmoid", "ELEMENT_F32", *ELEMENTWISE.macros).get_function("sigmoid")


def launch(x: Any, y: Any, grid: Any = (1, 1), block: Any = (256,), **options: Any) -> None:
    """Launch y = σ(x) for one row."""
    row = np.int64(x.size), np.int64(1)
    arguments = (x, *row, y, *row, np.int64(1), np.int64(x.size), np.int32(0))
    sigmoid()(grid, block, arguments, **options)


def raw_launch(*, grid: int = 1, block: int = 256, shared: int = 0, parameters: int = 0) -> None:
    head = (sigmoid().kernel.ptr, grid, 1, 1, block, 1, 1)
    cupy.cuda.driver.launchKernel(*head, shared, 0, parameters, 0)


def zeros(device: int = 0) -> Any:
    with cupy.cuda.Device(device):
        return cupy.zeros(COUNT, np.float32)


def address_of(values: Any) -> int:
    return ctypes.addressof(values)


@contextlib.contextmanager
def captured(stream: Any, mode: int) -> Iterator[None]:
    stream.begin_capture(mode)
    try:
        with stream:
            yield
    finally:
        with contextlib.suppress(Exception):  # of the capture that is invalid now
            stream.end_capture()


def new_stream() -> Any:
    return cupy.cuda.Stream(non_blocking=True)


# ---- tensor maps


@functools.cache
def maps_memory() -> Any:
    with cupy.cuda.using_allocator():  # no pool, whose allocations may be larger
        return cupy.zeros(4096, np.uint16)


def encode(**changes: Any) -> int:
    """Encode a map of 7 × 5 × 3 elements of 16 bits, with one thing wrong."""
    told: dict[str, Any] = {
        "shift": 0,
        "address": maps_memory().data.ptr,
        "rank": 3,
        "extents": (7, 5, 3),
        "strides": (16, 80),
        "box": (64, 4, 3),
        "steps": (1, 1, 1),
        "swizzle": 3,
    } | changes
    result = ctypes.create_string_buffer(512)
    aligned = -(-address_of(result) // 128) * 128 + told["shift"]
    return int(
        ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled(
            *(ctypes.c_void_p(aligned), 1, told["rank"], ctypes.c_void_p(told["address"])),
            (ctypes.c_uint64 * 5)(*told["extents"]),
            (ctypes.c_uint64 * 4)(*told["strides"]),
            (ctypes.c_uint32 * 5)(*told["box"]),
            (ctypes.c_uint32 * 5)(*told["steps"]),
            *(0, told["swizzle"], 2, 0),
        )
    )


MAPS: dict[str, tuple[dict[str, Any], str]] = {
    "a map that is not 64-byte aligned": ({"shift": 48}, "not 64-byte aligned"),
    "an array at address 0": ({"address": 0}, "0 or not 16-byte aligned"),
    "an array that is not 16-byte aligned": ({"address": 1 << 20 | 8}, "not 16-byte aligned"),
    "memory that nobody has allocated": ({"address": 1 << 20}, "not all within one allocation"),
    "more than was allocated": ({"extents": (7, 5, 300)}, "not all within one allocation"),
    "no dimension": ({"rank": 0}, "rank 0"),
    "six dimensions": ({"rank": 6}, "rank 6"),
    "an empty dimension": ({"extents": (7, 0, 3)}, "extent 1 is 0"),
    "a stride of 18 bytes": ({"strides": (18, 96)}, "stride 0 is 18"),
    "rows that overlap": ({"strides": (16, 64)}, "stride 1 is 64"),
    "an empty box": ({"box": (64, 0, 3)}, "box 1 is 0"),
    "a box of 257 rows": ({"box": (64, 257, 3)}, "box 1 is 257"),
    "a row of the box beyond the swizzle": ({"box": (72, 4, 3)}, "144 bytes, the swizzle 128"),
    "a row of the box of 24 bytes": ({"box": (12, 4, 3)}, "24 bytes"),
    "every ninth element": ({"steps": (1, 9, 1)}, "element stride 1 is 9"),
    "an unknown swizzle": ({"swizzle": 4}, "swizzle 4"),
}


@pytest.mark.parametrize("what", MAPS)
def test_tensor_map_is_refused(what: str) -> None:
    changes, says = MAPS[what]
    assert encode() == 0
    driver.refusals()
    assert encode(**changes) == 1
    assert says in driver.refusals()[-1]


def test_tensor_map_is_refused_without_a_context() -> None:
    assert encode() == 0
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(encode).result() == 201
    assert "no context is current" in driver.refusals()[-1]


# ---- calls that fail


def overlapping_parameters() -> None:
    """Those of the kernel, 8 bytes each, with 4 bytes for each."""
    memory = (ctypes.c_uint32 * 16)()
    places = (ctypes.c_void_p * 9)(*(address_of(memory) + 4 * i for i in range(9)))
    raw_launch(parameters=address_of(places))


def parameter_at_0() -> None:
    places = (ctypes.c_void_p * 9)()
    raw_launch(parameters=address_of(places))


def too_large_grid() -> None:
    launch(zeros(), zeros(), grid=(1, 65536))


def shared_memory_without_opt_in() -> None:
    launch(zeros(), zeros(), shared_mem=50 << 10)


def opt_in_beyond_the_device() -> None:
    sigmoid().max_dynamic_shared_size_bytes = 228 << 10


def parts_of_clusters() -> None:
    wgmma = module("matmul_backward_wgmma", "ELEMENT_BF16", *WGMMA[1][-1].macros, arch="sm_90a")
    kernel = wgmma.get_function("matmul_backward_wgmma").kernel
    parameters = (ctypes.c_char * 4096)()
    places = (ctypes.c_void_p * 64)(*(address_of(parameters) + 136 * (i % 30) for i in range(64)))
    cupy.cuda.driver.launchKernel(kernel.ptr, 3, 1, 1, 384, 1, 1, 0, 0, address_of(places), 0)


def unknown_kernel() -> None:
    module("sigmoid", "ELEMENT_F32", *ELEMENTWISE.macros).get_function("sigmoids").kernel  # noqa: B018


def no_cubin() -> None:
    cupy.cuda.driver.moduleLoadData(b"// PTX, for example" + bytes(64))


def cubin_of_another_architecture() -> None:
    path = cache.load("sigmoid", ("ELEMENT_F32", *ELEMENTWISE.macros), "sm_100").path
    cupy.cuda.driver.moduleLoad(str(path))


def stream_of_another_device() -> None:
    with cupy.cuda.Device(1):
        stream = new_stream()
    raw = sigmoid().kernel.ptr
    values = (ctypes.c_uint64 * 9)()
    places = (ctypes.c_void_p * 9)(*(address_of(values) + 8 * i for i in range(9)))
    cupy.cuda.driver.launchKernel(raw, *[1] * 6, 0, stream.ptr, address_of(places), 0)


def kernel_of_another_device() -> None:
    raw = sigmoid().kernel.ptr
    values = (ctypes.c_uint64 * 9)()
    places = (ctypes.c_void_p * 9)(*(address_of(values) + 8 * i for i in range(9)))
    with cupy.cuda.Device(1):
        cupy.cuda.driver.launchKernel(raw, *[1] * 6, 0, 0, address_of(places), 0)


def event_of_another_device() -> None:
    event = cupy.cuda.Event()
    with cupy.cuda.Device(1):
        stream = new_stream()
        runtime.eventRecord(event.ptr, stream.ptr)


def device_that_is_not_there() -> None:
    runtime.setDevice(2)


def too_much_memory() -> None:
    runtime.malloc(1 << 40)


def memory_given_back_twice() -> None:
    at = runtime.malloc(100)
    runtime.free(at)
    runtime.free(at)


def memory_given_back_from_its_middle() -> None:
    runtime.free(runtime.malloc(1024) + 512)


def copy_beyond_the_end() -> None:
    host = np.zeros(200, np.uint8)
    runtime.memcpy(host.ctypes.data, runtime.malloc(100), 200, runtime.memcpyDeviceToHost)


def copy_in_the_wrong_direction() -> None:
    host = np.zeros(100, np.uint8)
    runtime.memcpy(host.ctypes.data, runtime.malloc(100), 100, runtime.memcpyHostToDevice)


def copy_of_memory_given_back() -> None:
    at, host = runtime.malloc(100), np.zeros(100, np.uint8)
    runtime.free(at)
    runtime.memcpy(host.ctypes.data, at, 100, runtime.memcpyDeviceToHost)


def stream_that_was_destroyed() -> None:
    stream = runtime.streamCreate()
    runtime.streamDestroy(stream)
    runtime.streamSynchronize(stream)


def time_of_an_event_never_recorded() -> None:
    cupy.cuda.get_elapsed_time(cupy.cuda.Event(), cupy.cuda.Event())


def time_of_an_event_without_one() -> None:
    events = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
    for one in events:
        one.record()
        one.synchronize()
    cupy.cuda.get_elapsed_time(*events)


WRONG: dict[Callable[[], None], str] = {
    overlapping_parameters: "has 8 bytes, and parameter 1 begins 4 bytes behind it",
    parameter_at_0: "parameter 0 is at address 0",
    raw_launch: "it has parameters, none are given",
    functools.partial(raw_launch, grid=0): "grid is 0",
    functools.partial(raw_launch, block=2048): "block is 2048",
    functools.partial(raw_launch, block=512): "512 threads, its launch bounds allow 256",
    too_large_grid: "grid is 1 × 65536",
    shared_memory_without_opt_in: "51200 bytes of dynamic shared memory",
    opt_in_beyond_the_device: "opts into 233472 bytes",
    parts_of_clusters: "not whole clusters",
    unknown_kernel: "has no kernel sigmoids",
    no_cubin: "no cubin",
    cubin_of_another_architecture: "is for sm_100, the device is of 9.0",
    stream_of_another_device: "there is no such stream|the stream belongs to device 1",
    kernel_of_another_device: "was loaded on device 0, current is device 1",
    event_of_another_device: "the event is of device 0, the stream of 1",
    device_that_is_not_there: "there is no device 2",
    too_much_memory: "bytes are asked for",
    memory_given_back_twice: "no allocation begins at",
    memory_given_back_from_its_middle: "no allocation begins at",
    copy_beyond_the_end: "not all within one allocation",
    copy_in_the_wrong_direction: "memcpyHostToDevice of what is memcpyDeviceToHost",
    copy_of_memory_given_back: "not all within one allocation",
    stream_that_was_destroyed: "there is no such stream",
    time_of_an_event_never_recorded: "never recorded",
    time_of_an_event_without_one: "has no time",
}


def name_of(wrong: Any) -> str | None:
    if isinstance(wrong, functools.partial):
        return f"raw_launch-{wrong.keywords}"
    return getattr(wrong, "__name__", None)


@pytest.mark.parametrize("wrong", WRONG, ids=name_of)
def test_call_fails(wrong: Callable[[], None]) -> None:
    driver.refusals()
    with pytest.raises((RuntimeError, cupy.cuda.memory.OutOfMemoryError)):
        wrong()
    said = driver.refusals()
    assert any(one in said[-1] for one in WRONG[wrong].split("|")), said


# ---- captures


def allocates() -> None:
    runtime.malloc(100)


def copies_and_waits() -> None:
    host = np.zeros(4, np.uint8)
    runtime.memcpy(MEMORY.ptr, host.ctypes.data, 4, runtime.memcpyHostToDevice)


class Memory:
    """Allocated outside of the captures."""

    @functools.cached_property
    def ptr(self) -> int:
        return int(runtime.malloc(100))


MEMORY = Memory()


@pytest.mark.parametrize("call", [allocates, copies_and_waits], ids=name_of)
@pytest.mark.parametrize("mode", [GLOBAL, OF_THREAD])
def test_call_is_forbidden_in_a_capture(call: Callable[[], None], mode: int) -> None:
    """And makes the capture invalid; in relaxed mode an allocation is allowed."""
    assert MEMORY.ptr
    stream = new_stream()
    with captured(stream, RELAXED):
        allocates()
    stream.begin_capture(mode)
    with stream, pytest.raises(RuntimeError, match="CaptureUnsupported"):
        call()
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()


@pytest.mark.parametrize(("mode", "allowed"), [(GLOBAL, False), (OF_THREAD, True)])
def test_allocation_by_another_thread_in_a_capture(mode: int, allowed: bool) -> None:
    stream = new_stream()
    with captured(stream, mode), ThreadPoolExecutor(1) as thread:
        done = thread.submit(allocates)
        assert (done.exception() is None) == allowed


def test_streams_and_devices_are_not_waited_for_in_a_capture() -> None:
    for wait in (
        lambda stream: stream.synchronize(),
        lambda stream: runtime.streamQuery(stream.ptr) and allocates(),
        lambda stream: cupy.cuda.Device().synchronize(),
    ):
        stream = new_stream()
        stream.begin_capture(GLOBAL)
        with contextlib.suppress(RuntimeError):
            wait(stream)
        with pytest.raises(RuntimeError, match="Invalidated"):
            stream.end_capture()


def test_events_of_a_capture_are_not_waited_for() -> None:
    stream, event = new_stream(), cupy.cuda.Event()
    with captured(stream, RELAXED):
        event.record()
        with pytest.raises(RuntimeError, match="CapturedEvent"):
            event.synchronize()


def test_event_from_outside_of_a_capture() -> None:
    before, stream = cupy.cuda.Event(), new_stream()
    before.record()
    with captured(stream, RELAXED), pytest.raises(RuntimeError, match="Isolation"):
        stream.wait_event(before)


def test_event_of_a_capture_that_has_ended() -> None:
    stream, other, event = new_stream(), new_stream(), cupy.cuda.Event()
    with captured(stream, RELAXED):
        event.record(stream)
    with pytest.raises(RuntimeError, match="InvalidValue"):
        other.wait_event(event)


def test_stream_that_was_not_joined() -> None:
    stream, other = new_stream(), new_stream()
    x, y = zeros(), zeros()
    stream.begin_capture(RELAXED)
    with stream:
        other.wait_event(stream.record())
    with other:
        launch(x, y)
    with pytest.raises(RuntimeError, match="Unjoined"):
        stream.end_capture()


def test_capture_that_ends_elsewhere() -> None:
    stream = new_stream()
    stream.begin_capture(OF_THREAD)
    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="WrongThread"):
        thread.submit(stream.end_capture).result()
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()


def test_default_stream_is_not_captured() -> None:
    with pytest.raises(RuntimeError, match="Unsupported"):
        runtime.streamBeginCapture(0)


def test_default_stream_is_not_used_beside_a_capture_that_waits_for_it() -> None:
    stream, x, y = cupy.cuda.Stream(), zeros(), zeros()
    implicit = pytest.raises(RuntimeError, match="CAPTURE_IMPLICIT")
    with captured(stream, RELAXED), cupy.cuda.Stream.null, implicit:
        launch(x, y)


# ---- kernels that fail

KEPT: list[Any] = []  # until they are read


def use_after_free() -> None:
    y = zeros()
    with cupy.cuda.using_allocator():  # no pool, which may keep it
        x = zeros()
        where = x.data.ptr
        del x
    freed = cupy.ndarray(COUNT, np.float32, cupy.cuda.MemoryPointer(unowned(where), 0))
    launch(freed, y)


def unowned(where: int) -> Any:
    return cupy.cuda.UnownedMemory(where, 4 * COUNT, None, 0)


def memory_of_another_device() -> None:
    launch(zeros(device=1), zeros())


def beyond_the_end() -> None:
    row = np.int64(COUNT), np.int64(1)
    shape = np.int64(1), np.int64(10 * COUNT)
    memory = cupy.cuda.MemoryPointer(cupy.cuda.Memory(4 * COUNT), 0)  # of no pool
    x = cupy.ndarray(COUNT, np.float32, memory)
    sigmoid()((1, 1), (256,), (x, *row, x, *row, *shape, np.int32(0)))
    KEPT.append(x)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (use_after_free, "ILLEGAL_ADDRESS|IllegalAddress"),
        (memory_of_another_device, "ILLEGAL_ADDRESS|IllegalAddress"),
        (beyond_the_end, "LAUNCH_FAILED|LaunchFailure"),
    ],
    ids=name_of,
)
def test_kernel_that_fails_loses_the_context(wrong: Callable[[], None], error: str) -> None:
    """The launch succeeds; what waits for it fails, and every call after that."""
    sound = zeros()
    cupy.cuda.Device().synchronize()
    wrong()
    with pytest.raises(RuntimeError, match=error):
        cupy.cuda.Device().synchronize()
    for later in (runtime.getDevice, lambda: runtime.malloc(1), lambda: launch(sound, sound)):
        with pytest.raises(RuntimeError, match=error):
            later()
    driver.recover()
    assert sound.get().shape == (COUNT,)


def test_peers_may_be_used_once_they_are_enabled() -> None:
    x, y = zeros(device=1), zeros()
    with cupy.cuda.Device(1):
        cupy.cuda.Device().synchronize()
    runtime._deviceEnsurePeerAccess(1)
    launch(x, y)
    assert (y.get() == 0.5).all()


# ---- work that nothing orders


def written(values: float) -> Any:
    x = zeros()
    x.fill(values)
    cupy.cuda.Device().synchronize()
    return x


@pytest.mark.parametrize("ordered", [False, True])
def test_stream_that_does_not_wait_for_another(ordered: bool) -> None:
    first, second = new_stream(), new_stream()
    x, y, z = written(0), written(9), written(9)
    with first:
        launch(x, y)
    with second:
        if ordered:
            second.wait_event(first.record())
        launch(y, z)
    second.synchronize()
    exact = 1 / (1 + np.exp(-0.5)) if ordered else 1 / (1 + np.exp(-9))
    assert np.allclose(z.get(stream=second), exact, rtol=1e-6)


@pytest.mark.parametrize("ordered", [False, True])
def test_branches_of_a_graph_that_do_not_wait(ordered: bool) -> None:
    first, second = new_stream(), new_stream()
    x, y, z = written(0), written(9), written(9)
    first.begin_capture()
    with first:
        second.wait_event(first.record())
        launch(x, y)
    with second:
        if ordered:
            second.wait_event(first.record())
        launch(y, z)
    first.wait_event(second.record())
    first.end_capture().launch(first)
    exact = 1 / (1 + np.exp(-0.5)) if ordered else 1 / (1 + np.exp(-9))
    assert np.allclose(z.get(stream=first), exact, rtol=1e-6)


def test_work_of_a_stream_that_is_destroyed() -> None:
    x, y = written(0), written(9)
    with new_stream():
        launch(x, y)
    cupy.cuda.Device().synchronize()
    assert (y.get() == 0.5).all()


@pytest.mark.parametrize("ordered", [False, True])
def test_memory_that_is_written_while_it_is_read(ordered: bool) -> None:
    """A kernel that has been launched may not have run when another stream writes its operand."""
    first, second = new_stream(), new_stream()
    x, y = written(0), written(9)
    with first:
        launch(x, y)
    with second:
        if ordered:
            second.wait_event(first.record())
        x.fill(1)
    second.synchronize()
    first.synchronize()
    assert np.allclose(y.get(), 0.5 if ordered else 1 / (1 + np.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("waits", [False, True])
def test_pinned_memory_that_is_changed_too_early(waits: bool) -> None:
    pinned = cupy.cuda.alloc_pinned_memory(4 * COUNT)
    host = np.frombuffer(pinned, np.float32, COUNT)
    host[...] = 1
    stream, x = new_stream(), written(0)
    x.data.copy_from_host_async(host.ctypes.data, 4 * COUNT, stream)
    if waits:
        stream.synchronize()
    host[...] = 2
    stream.synchronize()
    assert (x.get() == (1 if waits else 2)).all()


@pytest.mark.parametrize("waits", [False, True])
def test_results_in_pinned_memory_that_are_read_too_early(waits: bool) -> None:
    pinned = cupy.cuda.alloc_pinned_memory(4 * COUNT)
    host = np.frombuffer(pinned, np.float32, COUNT)
    host[...] = 1
    stream, x = new_stream(), written(3)
    x.data.copy_to_host_async(host.ctypes.data, 4 * COUNT, stream)
    if waits:
        stream.synchronize()
    assert (host == (3 if waits else 1)).all()


def test_garbage_is_collected_while_a_kernel_runs() -> None:
    """Giving memory back waits for the device; later launches must not begin for that."""
    held = [cupy.cuda.Memory(1000)]

    def run(launched: Any) -> int:
        held.clear()
        return execution.run(launched)

    x, y, z = written(0), written(9), written(9)
    library.start(run)
    try:
        launch(x, y)
        launch(y, z)
        assert np.allclose(z.get(), 1 / (1 + np.exp(-0.5)), rtol=1e-6)
    finally:
        library.start(execution.run)


def test_new_memory_is_poisoned() -> None:
    with cupy.cuda.using_allocator():  # no pool, whose memory others have used
        assert np.isnan(cupy.empty(COUNT, np.float32).get()).all()


# ---- processes


def outcome(code: str) -> subprocess.CompletedProcess[str]:
    start = "from tests import driver; driver.install(); driver.set_devices(); import cupy, os\n"
    command = [sys.executable, "-c", start + code]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_host_cannot_read_device_memory() -> None:
    done = outcome("import ctypes; ctypes.c_int.from_address(cupy.zeros(4).data.ptr).value")
    assert done.returncode == -signal.SIGSEGV


def test_forked_process_cannot_use_cuda() -> None:
    """Where its parent has used it, as with a real driver."""
    done = outcome(
        "cupy.zeros(4); child = os.fork()\n"
        "if child == 0:\n"
        "    try: cupy.zeros(4)\n"
        "    except Exception as error: os._exit('cudaErrorInitializationError' in str(error))\n"
        "    os._exit(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1\n"
        "assert cupy.zeros(4).get().sum() == 0"
    )
    assert done.returncode == 0, done.stderr


def test_forked_process_may_begin_to_use_cuda() -> None:
    done = outcome(
        "child = os.fork()\n"
        "if child == 0: os._exit(int(cupy.ones(4).get().sum()))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4"
    )
    assert done.returncode == 0, done.stderr


def test_threads_compute_at_once() -> None:
    def work(value: int) -> bool:
        stream = new_stream()
        with stream:
            x = cupy.full(COUNT, np.float32(value), np.float32)
            y = cupy.empty_like(x)
            for _ in range(5):
                launch(x, y)
        exact = 1 / (1 + np.exp(-np.float64(value)))
        return bool(np.allclose(y.get(stream=stream), exact, rtol=1e-6))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(8)))
