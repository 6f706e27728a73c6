"""Workers on the CPU: the same bits with any number of them, and nothing left behind."""

import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad
from gpugrad.calls import cache
from gpugrad.cpu import activation, threads, workers
from gpugrad.errors import ArgumentError
from tests.conftest import Backend
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import OPERATIONS, compute, same_bits

TALL = Layer((8200,), 65, 63)  # blocks of rows
TALL_AND_NARROW = Layer((90_001,), 7, 3)
TILED = Layer((600,), 390, 410)
LONG = Layer((4200,), 400, 400)  # the sum over the batch is cut as well
WORKERS = ("1", "2", "3", "8")


def blas_threads():
    """Of the libraries that are known since the first call: others may be loaded later."""
    return [one.get_num_threads() for one in threads.libraries().all]


@pytest.fixture
def two_blas_threads():
    """Of which there may be one only, on a machine with one core."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield blas_threads()


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (TALL, "float32"),
        (TALL, "bfloat16"),
        (TALL_AND_NARROW, "float64"),
        (TILED, "float32"),
        (TILED, "float16"),
        (LONG, "float32"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_with_any_number_of_workers(monkeypatch, name, layer, dtype):
    arrays = layer_arrays(layer, dtype)
    results = []
    for number in WORKERS:
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", number)
        results.append(compute(Backend(), name, arrays))
    for other in results[1:]:
        assert all(same_bits(results[0][one], other[one]) for one in other)


def test_several_threads_work(monkeypatch):
    """Each of three tasks waits for the two others."""
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "3")
    together = threading.Barrier(3, timeout=10)
    work = workers.Work()
    work.tasks += [lambda scratch: together.wait()] * 3
    work.run()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
@pytest.mark.parametrize("bound", [False, True], ids=["first call", "bound call"])
@pytest.mark.parametrize("layer", [(3, 4, 5), (60, 50, 40), (300, 200, 100), (9000, 64, 64)])
def test_a_wrong_number_of_threads_is_refused_before_the_first_write(
    monkeypatch, layer, bound, value
):
    n, k, m = layer
    dy, x, w = (np.ones(shape, np.float32) for shape in ((n, m), (n, k), (k, m)))
    out = (None, None, np.full(m, 7, np.float32))

    def call():
        return gpugrad.dense_sigmoid_backward(dy, dy, x, w, out=out, accumulate=True, device="cpu")

    cache.clear()
    if bound:
        call()
    out[2].fill(7)
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", value)
    with pytest.raises(ArgumentError, match="GPUGRAD_NUM_THREADS"):
        call()
    assert (out[2] == 7).all()


def test_an_empty_number_of_threads_counts_as_not_set(monkeypatch):
    monkeypatch.delenv("GPUGRAD_NUM_THREADS", raising=False)
    expected = threads.number_of_workers()
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "")
    assert threads.number_of_workers() == expected
    assert gpugrad.sigmoid(np.zeros(3_000_000, np.float32), device="cpu")[0] == 0.5


# ---- the BLAS's threads


def test_the_blas_is_given_back_by_the_last_holder(two_blas_threads):
    first, second = (threads.Hold(threads.libraries()) for _ in range(2))
    first.take()
    second.take()
    assert set(blas_threads()) == {1}
    first.release()
    first.release()
    assert set(blas_threads()) == {1}
    second.release()
    assert blas_threads() == two_blas_threads


def test_threads_that_look_for_the_blas_at_the_same_time_share_a_context(monkeypatch):
    together = threading.Barrier(2, timeout=10)

    def controller():
        together.wait()
        return ThreadpoolController()

    monkeypatch.setattr(threads, "_found", {})
    monkeypatch.setattr(threads, "ThreadpoolController", controller)
    seen = []
    other = threading.Thread(target=lambda: seen.append(threads.libraries()))
    other.start()
    mine = threads.libraries()
    other.join()
    assert mine is seen[0]


@pytest.mark.parametrize("number", ["1", "3"])
def test_an_error_in_a_task_is_raised_when_the_others_have_ended(
    monkeypatch, two_blas_threads, number
):
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", number)
    arrays = layer_arrays(TALL, "float32")
    calls, working = [], []
    gradient = activation.gradient

    def fails_later(*args, **options):
        calls.append(None)
        working.append(None)
        try:
            if len(calls) == 3:
                raise MemoryError
            return gradient(*args, **options)
        finally:
            working.pop()

    cache.clear()
    monkeypatch.setattr(activation, "gradient", fails_later)
    with pytest.raises(MemoryError):
        compute(Backend(), "dense_sigmoid_backward", arrays)
    assert not working
    assert blas_threads() == two_blas_threads
    monkeypatch.undo()
    cache.clear()
    compute(Backend(), "dense_sigmoid_backward", arrays)


def test_no_worker_keeps_an_array(monkeypatch):
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "3")
    arrays = layer_arrays(TALL, "float32")
    results = compute(Backend(), "dense_sigmoid_backward", arrays)
    kept = [weakref.ref(one) for one in (*arrays.values(), *results.values())]
    del arrays, results
    assert not [one for one in kept if one() is not None]


def test_idle_workers_end_and_come_again(monkeypatch):
    """Their buffers go with them."""
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "3")
    monkeypatch.setattr(workers, "IDLE", 0.01)
    monkeypatch.setattr(workers, "_workers", {})
    arrays = layer_arrays(Layer((20_000,), 65, 63), "float32")
    expected = compute(Backend(), "dense_sigmoid_backward", arrays)
    first = [*workers._workers.values()]
    assert len(first) == 2
    for worker in first:
        worker.join(10)
        assert not worker.is_alive()
    found = compute(Backend(), "dense_sigmoid_backward", arrays)
    assert all(same_bits(expected[one], found[one]) for one in expected)
    assert not set(first) & set(workers._workers.values())


def test_calls_from_several_threads(monkeypatch, two_blas_threads):
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "3")
    arrays = layer_arrays(TALL, "float32")
    expected = compute(Backend(), "dense_sigmoid_backward", arrays)
    results = []

    def call():
        results.extend(compute(Backend(), "dense_sigmoid_backward", arrays) for _ in range(5))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert len(results) == 20
    assert all(same_bits(one[name], expected[name]) for one in results for name in expected)
    assert blas_threads() == two_blas_threads


@pytest.mark.parametrize(
    "layer", [Layer((64,), 64, 64), Layer((64,), 1, 4000), Layer((130,), 71, 58), TILED], ids=str
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_with_any_number_of_blas_threads(name, layer):
    arrays = layer_arrays(layer, "float32")
    results = []
    for limit in (1, 2, 3):
        with ThreadpoolController().limit(limits=limit, user_api="blas"):
            results.append(compute(Backend(), name, arrays))
    for other in results[1:]:
        assert all(same_bits(results[0][one], other[one]) for one in other)


class ThreadOwned:
    """A BLAS whose number of threads is each thread's own."""

    threading_layer, internal_api = "openmp", "openblas"

    def __init__(self):
        self.local = threading.local()

    def get_num_threads(self):
        return getattr(self.local, "threads", 7)

    def set_num_threads(self, number):
        self.local.threads = number


def test_a_number_of_threads_that_is_each_threads_own():
    library = ThreadOwned()
    libraries = threads.Libraries([library])
    seen = []

    def look():
        hold = threads.Hold(libraries)
        hold.take()
        seen.append(library.get_num_threads())
        hold.release()
        seen.append(library.get_num_threads())

    hold = threads.Hold(libraries)
    hold.take()
    other = threading.Thread(target=look)
    other.start()
    other.join()
    look()
    hold.release()
    assert seen == [1, 7, 1, 1]
    assert library.get_num_threads() == 7


# ---- processes: forks, Ctrl-C, the end

PREPARE = """
import os, threading, warnings
import numpy as np, gpugrad
from threadpoolctl import ThreadpoolController
from gpugrad.cpu.threads import Hold, libraries
os.environ["GPUGRAD_NUM_THREADS"] = "3"
found = ThreadpoolController().select(user_api="blas")
found.limit(limits=2)
threads = lambda: [one.get_num_threads() for one in found.lib_controllers]
before = threads()
x, w = np.ones((20_000, 64), np.float32), np.full((64, 64), 0.01, np.float32)
y = gpugrad.dense_sigmoid(x, w, device="cpu")
backward = lambda: gpugrad.dense_sigmoid_backward(y, y, x, w, device="cpu")
"""


def run(code, *, interrupt=False):
    """Run a program; once it has printed a line, Ctrl-C it if asked to. Give its last line."""
    command = [sys.executable, "-c", PREPARE + textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if interrupt:
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.splitlines()[-1]


def test_the_first_call_gives_the_blas_back_too():
    assert run("print(threads() == before)") == "True"


def test_a_forked_process_has_workers_of_its_own():
    """Even where it was forked while another thread's call held the BLAS at one thread."""
    code = """
    expected = backward()
    other = threading.Thread(target=lambda: Hold(libraries()).take())
    other.start()
    other.join()
    warnings.simplefilter("ignore")  # from Python 3.12 on: a fork beside threads
    child = os.fork()
    if not child:
        right = threads() == before
        right &= all(np.array_equal(a, b) for a, b in zip(backward(), expected))
        right &= threads() == before
        os._exit(0 if right else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0"


def test_ctrl_c_leaves_nothing_behind():
    code = """
    try:
        print("ready", flush=True)
        while True:
            backward()
    except KeyboardInterrupt:
        print(threads() == before, np.isfinite(backward().dw).all())
    """
    assert run(code, interrupt=True) == "True True"


@pytest.mark.slow
def test_a_ctrl_c_at_any_moment_leaves_nothing_behind():
    code = """
    import random, signal
    from gpugrad.cpu import workers
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    x, y = x[:3000], y[:3000]
    expected = backward()
    random.seed(0)
    left = 0
    for _ in range(400):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-4, 4e-3))
            while True:
                backward()
        except KeyboardInterrupt:
            pass
        left += threads() != before
    right = all(np.array_equal(a, b) for a, b in zip(backward(), expected))
    print(left, len(workers._workers), workers._running, right)
    """
    assert run(code) == "0 2 [] True"


def test_calls_at_the_interpreters_end():
    code = """
    import atexit
    expected = backward()
    atexit.register(lambda: print(np.array_equal(backward().dw, expected.dw), threads() == before))
    """
    assert run(code) == "True True"
