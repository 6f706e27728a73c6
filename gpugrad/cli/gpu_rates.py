"""The GPU's rates, measured: copies, calls, passes over memory, and each kernel of products."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpugrad import dispatch
from gpugrad.benchmark.stopwatch import Stopwatch
from gpugrad.gpu.bind import Runtime, bind
from gpugrad.planning import gpu_costs
from gpugrad.planning.choice import candidates, passes, steps_of
from gpugrad.planning.gpu_costs import Copy, DeviceFacts, GpuRates
from gpugrad.planning.problem import Gemm, Plan, Problem
from gpugrad.testing import operations

COPY_BYTES = (1 << 12, 1 << 20, 1 << 24, 1 << 26)
PASS_BYTES = 1 << 28  # of each of the three arrays of a pass, or less of a small memory
MEMORY_SHARE = 16  # of the device's memory, the part that one array may take
SIDES = (4096, 1024)  # of products: one with large tiles, one with small ones
PRECISIONS = ("highest", "high", "medium")  # which together have every algorithm
DTYPES = ("float32", "float16", "float64")  # bfloat16 has the rates of float16
TINY = (8, 8, 8)  # a layer that is all launches

Work = Callable[[], object]


class Clock:
    """Times work on the current GPU; names are for those that stand in for it."""

    samples = 7
    sample_seconds = 5e-3  # at least
    seconds = 0.4  # after which no sample is begun

    def on_device(self, name: str, work: Work) -> float:
        """Return the seconds of work between two events, of many calls in a row."""
        watch = Stopwatch("gpu")
        work()  # compiles
        with watch:
            work()
        calls = min(100, math.ceil(self.sample_seconds / max(watch.last, 1e-6)))
        found: list[float] = []
        watch.total = 0.0
        while not found or (len(found) < self.samples and watch.total < self.seconds):
            with watch:
                for _ in range(calls):
                    work()
            found.append(watch.last / calls)
        return statistics.median(found)

    def until_done(self, name: str, work: Work) -> float:
        """Return the seconds from a call until its result is there."""
        import cupy

        stream = cupy.cuda.get_current_stream()
        work()
        stream.synchronize()
        found: list[float] = []
        while len(found) < self.samples or sum(found) < self.sample_seconds:
            start = time.perf_counter()
            work()
            stream.synchronize()
            found.append(time.perf_counter() - start)
        return statistics.median(found)


def measure(seconds: float, clock: Clock | None = None) -> Iterator[str | GpuRates]:
    """Measure the current GPU.

    Parameters
    ----------
    seconds : float
        After which no further kernel is measured: the rates of all that compute such products
        are then those that follow from the device's properties.
    clock : Clock, optional

    Yields
    ------
    str or GpuRates
        Words on what is measured next; the last is the result.
    """
    start = time.perf_counter()
    clock = clock or Clock()
    runtime = dispatch.runtime()
    facts = runtime.facts(None)
    largest = facts.memory // MEMORY_SHARE
    yield "copies between host and GPU"
    sizes = [size for size in COPY_BYTES if size <= largest]
    to_device, to_host = (
        _copy(sizes, functools.partial(_pageable, runtime, clock, back=back))
        for back in (False, True)
    )
    pinned_to_device, pinned_to_host = (
        _copy(sizes, functools.partial(_pinned, clock, back=back)) for back in (False, True)
    )
    yield "launches"
    call, launch = _launches(runtime, clock)
    yield "passes over memory"
    bandwidth = _bandwidth(runtime, clock, min(PASS_BYTES, largest), launch)
    rates = GpuRates(call, launch, bandwidth, to_device, to_host, pinned_to_device, pinned_to_host)
    multiply_adds: dict[str, float] = {}
    for problem, choices in _products(facts):
        found: dict[str, float] = {}
        if time.perf_counter() - start < seconds:
            near = _near(runtime, problem.op, (problem.n, problem.k, problem.m), problem.dtype)
        for algorithm, planes in choices:
            if time.perf_counter() - start >= seconds:
                break
            ((_, step),) = steps_of(problem, algorithm, planes)
            assert isinstance(step, Gemm)
            name = gpu_costs.kernel_name(
                problem.dtype, algorithm, planes, step.configuration.BLOCK_N
            )
            if name in multiply_adds:  # the same at every size
                continue
            yield name
            taken = clock.on_device(name, _product(runtime, problem, near, algorithm, planes))
            before = passes(problem, algorithm, planes)
            taken -= sum(launch + traffic / bandwidth for traffic in before) + launch
            found[name] = gpu_costs.product_work(step, facts.sm_count) / max(taken, launch)
        else:  # all of those that compete, or none
            multiply_adds = found | multiply_adds
    yield dataclasses.replace(rates, multiply_adds=tuple(multiply_adds.items()))


# ---- copies


def _copy(sizes: list[int], seconds_of: Callable[[int], float]) -> Copy:
    """Find latency and bandwidth: that of the smallest copy, and what larger ones take beyond."""
    smallest, *larger = sizes
    latency = seconds_of(smallest)
    rates = [(size - smallest) / max(seconds_of(size) - latency, 1e-9) for size in larger]
    return Copy(latency, statistics.median(rates))


def _pageable(runtime: Runtime, clock: Clock, size: int, *, back: bool) -> float:
    """Time a copy as calls on NumPy arrays make it."""
    host = np.ones(size, np.uint8)
    near = runtime.to_device(host)
    if back:
        return clock.until_done(f"to host {size}", lambda: runtime.to_host(near, host))
    return clock.until_done(f"to device {size}", lambda: runtime.to_device(host))


def _pinned(clock: Clock, size: int, *, back: bool) -> float:
    """Time a copy between page-locked memory and the device."""
    import cupy

    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)
    host[...] = 1
    near = cupy.empty(size, np.uint8)
    if back:
        return clock.until_done(f"pinned to host {size}", lambda: near.get(out=host))
    return clock.until_done(f"pinned to device {size}", lambda: near.set(host))


# ---- calls and kernels


def _near(runtime: Runtime, op: str, size: operations.Size, dtype: str) -> operations.Arrays:
    """Draw an operation's operands and bring them to the device."""
    operands = operations.random_operands(op, size, np.dtype(dtype), seed=0)
    return {name: runtime.to_device(one) for name, one in operands.items()}


def _launches(runtime: Runtime, clock: Clock) -> tuple[float, float]:
    """Distinguish a call from its kernels: one call has a single kernel, the other two."""

    def seconds(op: str) -> float:
        near = _near(runtime, op, TINY, "float32")
        return clock.until_done(f"call {op}", lambda: operations.call(op, near, device="gpu"))

    one, two = seconds("sigmoid"), seconds("matmul_backward")
    launch = min(max(two - one, 0.1 * gpu_costs.GPU_LAUNCH), one / 2)
    return one - launch, launch


def _bandwidth(runtime: Runtime, clock: Clock, size: int, launch: float) -> float:
    """Find the bytes a second that a pass reads and writes."""
    count = size // 4
    near = [runtime.to_device(np.full(count, 0.5, np.float32)) for _ in range(2)]
    problem = Problem("sigmoid_backward", 1, 0, count, "float32", reads=2)
    plan = Plan(problem.op, "gpu", "elementwise", None, None, "to be measured")
    results = {"dz": runtime.empty((count,), near[0].dtype)}
    inputs: dict[str, Any] = {"dy": near[0], "y": near[1], "z": None}
    work = bind(runtime, plan, inputs, results)
    seconds = clock.on_device("pass", work)
    return (problem.bytes_in + problem.bytes_out) / max(seconds - launch, seconds / 2)


def _products(facts: DeviceFacts) -> Iterator[tuple[Problem, list[tuple[str, int]]]]:
    """List the products to be measured and their algorithms and planes, the large ones first."""
    for side in SIDES:
        for dtype in DTYPES:
            problem = Problem("matmul_backward", side, side, side, dtype, ("x",))
            choices = dict.fromkeys(
                choice
                for precision in PRECISIONS
                for choice in candidates(problem, precision, facts.compute_capability)
            )
            yield problem, list(choices)


def _product(
    runtime: Runtime, problem: Problem, near: operations.Arrays, algorithm: str, planes: int
) -> Work:
    """Prepare dx = dy wᵀ by an algorithm, whatever would be chosen."""
    steps = steps_of(problem, algorithm, planes)
    plan = Plan(problem.op, "gpu", algorithm, None, None, "to be measured", steps)
    results = {"dx": runtime.empty(near["x"].shape, near["x"].dtype)}
    return bind(runtime, plan, near, results)
