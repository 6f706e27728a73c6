"""Calls in signal handlers, at the interpreter's end, after forks and beside dead workers.

Each in a process of its own, with a time limit: one that waits for ever is a failure.
"""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gpugrad

LIMIT = 60  # seconds: each takes about one on an idle machine
PREPARE = """
import builtins, ctypes, os, signal, sys, threading, time, warnings
import numpy as np, gpugrad
warnings.simplefilter("ignore")  # from Python 3.12 on: a fork beside threads
def layer(n):
    x, w = np.ones((n, 64), np.float32), np.full((64, 64), 0.01, np.float32)
    y = gpugrad.dense_sigmoid(x, w, device="cpu")
    return lambda: gpugrad.dense_sigmoid_backward(y, y, x, w, device="cpu")
def same(a, b):
    return all(map(np.array_equal, a, b))
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Linux")


def run(code, **variables):
    """Run a program on two workers, and return its last line."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(code)],
        env=os.environ | {"GPUGRAD_NUM_THREADS": "2"} | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_call_in_a_signal_handler():
    """While the interrupted call holds the BLAS, and its lock at times."""
    code = """
    outer, inner = layer(20_000), layer(20_000)
    expected, right, handled = outer(), [], []
    def handler(*_):
        handled.append(same(inner(), expected))
        signal.setitimer(signal.ITIMER_REAL, 0.005)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        right.append(same(outer(), expected))
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(all(right), all(handled), len(handled) > 3)
    """
    assert run(code) == "True True True"


def test_a_handler_that_waits_for_another_threads_call():
    """At a moment when the interrupted call owns the lock on the BLAS."""
    code = """
    from gpugrad.cpu import threads
    call = layer(20_000)
    expected, found = call(), []
    with threads.libraries().lock:
        other = threading.Thread(target=lambda: found.append(call()))
        other.start()
        other.join()
    print(same(found[0], expected))
    """
    assert run(code) == "True"


def test_a_call_at_the_interpreters_end():
    """When no worker gets the GIL any more."""
    code = """
    call = layer(200_000)
    expected = call().dw.tobytes()
    class Late:
        def __del__(self, write=os.write, call=call, expected=expected):
            write(1, b"%d\\n" % (call().dw.tobytes() == expected))
    builtins.late = Late()
    """
    assert run(code) == "1"


def test_a_call_at_the_end_beside_a_thread_that_computed():
    """Which may own any lock."""
    code = """
    call = layer(20_000)
    expected = call().dw.tobytes()
    def for_ever():
        while True:
            call()
    threading.Thread(target=for_ever, daemon=True).start()
    class Late:
        def __del__(self, write=os.write, call=call, expected=expected):
            write(1, b"%d\\n" % (call().dw.tobytes() == expected))
    builtins.late = Late()
    time.sleep(0.2)
    """
    assert run(code) == "1"


def test_a_worker_that_has_died():
    code = """
    call = layer(50_000)
    expected = call()
    for _ in range(3):
        for one in threading.enumerate():
            if one.name == "gpugrad":
                raised = ctypes.pythonapi.PyThreadState_SetAsyncExc
                raised(ctypes.c_ulong(one.ident), ctypes.py_object(SystemExit))
        for _ in range(20):
            try:
                right = same(call(), expected)
            except SystemExit:  # a task's
                pass
    print(right)
    """
    assert run(code) == "True"


@forks
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_child_that_returns_into_the_call(accumulate):
    """Forked by a signal handler: what workers have begun is complete, the rest it computes."""
    code = f"""
    n, children, codes = 60_000, [], []
    x, w = np.ones((n, 64), np.float32), np.full((64, 64), 0.01, np.float32)
    y = gpugrad.dense_sigmoid(x, w, device="cpu")
    out = [np.zeros_like(one) for one in (x, w, w[0])]
    def call():
        for one in out:
            one.fill(1)
        gpugrad.dense_sigmoid_backward(y, y, x, w, out=out, accumulate={accumulate}, device="cpu")
        return [one.copy() for one in out]
    expected, in_child, forked = call(), False, 0
    def handler(*_):
        global in_child
        child = os.fork()
        in_child = not child
        children.append(child)
    signal.signal(signal.SIGALRM, handler)
    for i in range(15):
        signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.002 * (i % 5))
        while len(children) <= i:
            right = same(call(), expected)
            if in_child:
                os._exit(0 if right and same(call(), expected) else 1)
            assert right
        codes.append(os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1]))
    print(codes)
    """
    assert run(code) == str([0] * 15)


@forks
def test_a_child_of_a_handler_has_the_affinity_of_the_process():
    code = """
    call, seen, allowed = layer(50_000), set(), os.sched_getaffinity(0)
    call()
    def handler(*_):
        seen.add(os.sched_getaffinity(0) == allowed)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    for _ in range(30):
        call()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(seen)
    """
    assert run(code) == "{True}"


@forks
def test_an_affinity_that_is_set_from_outside_stays():
    code = """
    call, allowed = layer(50_000), os.sched_getaffinity(0)
    call()
    one, undone = {min(allowed)}, 0
    for i in range(10):
        def outside():
            time.sleep(0.005)
            for task in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(task), one)
        thread = threading.Thread(target=outside)
        thread.start()
        while thread.is_alive():
            call()
        undone += os.sched_getaffinity(0) != one
        os.sched_setaffinity(0, allowed)
    print(undone)
    """
    assert run(code) == "0"


# ---- locks

LOCKS = {  # every one of the package, as an expression in a module
    "gpugrad.arrays.kinds": "_releasing",
    "gpugrad.cpu.threads": "libraries().lock",
    "gpugrad.gpu.compiler": "IMPORTING",
    "gpugrad.torch.main_grad": "_adding",
}


def test_all_locks_are_listed():
    root = Path(gpugrad.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", ""))
            if name in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"):
                found.add(".".join(("gpugrad", *path.relative_to(root).with_suffix("").parts)))
    assert found == set(LOCKS)


@forks
@pytest.mark.parametrize(("module", "lock"), LOCKS.items())
def test_a_lock_that_another_thread_holds_is_free_in_a_child(module, lock):
    if module == "gpugrad.torch.main_grad":
        pytest.importorskip("torch", reason="needs PyTorch")
    if module == "gpugrad.gpu.compiler":
        pytest.importorskip("cupy", reason="needs CuPy")
    code = f"""
    import {module} as module
    held, done = threading.Event(), threading.Event()
    def hold():
        with eval({lock!r}, vars(module)):
            held.set()
            done.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if eval({lock!r}, vars(module)).acquire(timeout=5) else 1)
    done.set()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0"


# ---- the first call in a process of each start method


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("framework", ["none", "PyTorch"])
def test_calls_in_processes_of_each_start_method(tmp_path, method, framework):
    """The parent has called before, and has workers."""
    if framework == "PyTorch":
        pytest.importorskip("torch", reason="needs PyTorch")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing, sys, warnings
        import numpy as np
        if sys.argv[2] == "PyTorch":
            import torch
        import gpugrad
        warnings.simplefilter("ignore")
        def call(_=None):
            if sys.argv[2] == "PyTorch":
                torch.rand(64)  # its products hang in a forked child, without gpugrad too
            x, w = np.ones((20_000, 64), np.float32), np.full((64, 64), 0.01, np.float32)
            y = gpugrad.dense_sigmoid(x, w, device="cpu")
            return gpugrad.dense_sigmoid_backward(y, y, x, w, device="cpu").dw.tobytes()
        if __name__ == "__main__":
            expected = call()
            with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                print(set(pool.map(call, range(4))) == {expected})
        """)
    )
    done = subprocess.run(
        [sys.executable, str(program), method, framework],
        env=os.environ | {"GPUGRAD_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr
