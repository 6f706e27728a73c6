"""gpugrad bench: time the CPU, the GPU where there is one, and plain NumPy expressions."""

import argparse
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpugrad import _dispatch, _kinds
from gpugrad._arrays import Call
from gpugrad._operations import OPERATIONS
from gpugrad.cli import arguments as numbers
from gpugrad.cli import exits, machine, operations, terminal
from gpugrad.cli.devices import devices
from gpugrad.cli.stopwatch import Stopwatch
from gpugrad.cli.verification import verify

SIZES = ((256, 512, 512), (4096, 1024, 1024), (100_000, 64, 64))
BASELINE = "NumPy"
SAMPLE_SECONDS = 2e-3  # short calls are repeated until a sample takes about this long


Case = tuple[str, np.dtype[Any], operations.Size]


@dataclass
class Measurement:
    """Seconds of one way to compute one case, a sample each."""

    case: Case
    what: str
    bytes: int
    flops: float
    samples: list[float] = field(default_factory=list)

    def quartiles(self) -> tuple[float, float, float]:
        """Give the lower quartile, the median and the upper quartile."""
        low, median, high = np.percentile(self.samples, (25, 50, 75))
        return float(low), float(median), float(high)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--op", action="append", choices=tuple(OPERATIONS), help="(repeatable; all)"
    )
    presets = ", ".join(",".join(map(str, size)) for size in SIZES)
    parser.add_argument(
        "--size",
        action="append",
        type=numbers.size,
        metavar="N,K,M",
        help=f"rows, inputs and outputs of the layer (repeatable; {presets})",
    )
    parser.add_argument(
        "--dtype", action="append", choices=_kinds.DTYPES, help="(repeatable; float32)"
    )
    parser.add_argument(
        "--repeat", type=numbers.count, default=15, metavar="R", help="samples (15)"
    )
    parser.add_argument(
        "--device",
        choices=_dispatch.DEVICES,
        default="auto",
        help="where the library computes; auto is GPUGRAD_DEVICE, or else every device there is",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; what was measured before Ctrl-C is printed too."""
    places = devices(arguments.device)
    names = dict.fromkeys(arguments.dtype or ("float32",))
    ops = dict.fromkeys(arguments.op or OPERATIONS)
    sizes = dict.fromkeys(arguments.size or SIZES)
    dtypes = [operations.dtype_of(name) for name in names]
    cases = list(itertools.product(ops, dtypes, sizes))
    for case in cases:
        _refuse_too_large(case, places)
    measured: list[Measurement] = []
    interrupted = False
    try:
        with terminal.progress() as progress:
            task = progress.add_task("measuring", total=len(cases))
            for case in cases:
                progress.update(task, description=_title(*case), refresh=True)
                _measure(case, places, arguments.repeat, measured)
                progress.update(task, advance=1, refresh=True)
    except KeyboardInterrupt:
        interrupted = True
    measured = [one for one in measured if one.samples]
    if arguments.json:
        results = list(_results(measured))
        terminal.print_json("bench", {"interrupted": interrupted, "results": results})
    elif measured:
        _print(measured)
    if interrupted:
        raise KeyboardInterrupt
    return exits.OK


def _refuse_too_large(case: Case, places: tuple[str, ...]) -> None:
    """Refuse a case whose arrays will not fit, before anything is allocated."""
    op, dtype, size = case
    operands = sum(map(math.prod, operations.shapes(op, size).values()))
    results = sum(map(math.prod, operations.result_shapes(op, size).values()))
    n, _, m = size
    wide = max(4, dtype.itemsize)
    need = dtype.itemsize * (operands + 2 * results) + 3 * wide * n * m  # 3 temporaries of dz
    if dtype.itemsize < wide:
        need += wide * (operands + results)
    rooms = {"CPU": machine.free_memory()}
    if "gpu" in places:
        rooms["GPU"] = _dispatch.runtime().facts(None).memory
    for place, room in rooms.items():
        if room is not None and need > room:
            raise exits.Unusable(
                f"{op} at {','.join(map(str, size))} in {dtype.name} needs about "
                f"{terminal.size(need)} of memory, the {place} has {terminal.size(room)}"
            )


# ---- measuring


def _measure(case: Case, places: tuple[str, ...], repeat: int, measured: list[Measurement]) -> None:
    """Measure one case, a sample of each way in turn, so that drifts of the clock hit all."""
    op, dtype, size = case
    operands = operations.arrays(op, size, dtype, seed=0)
    with Call(op, **operands) as call:
        problem = _dispatch.problem_of(call, operations.wrt(op))
    traffic = problem.bytes_in + problem.bytes_out
    runs: list[tuple[Measurement, Stopwatch, Callable[[], object], int]] = []

    def add(
        what: str, device: str, work: Callable[[], object], moved: int, flops: float = 0.0
    ) -> None:
        watch = Stopwatch(device)
        work()  # warms up: compiles kernels, fills pools
        with watch:
            work()
        calls = max(1, math.ceil(SAMPLE_SECONDS / max(watch.last, 1e-6)))
        measurement = Measurement(case, what, moved, flops)
        measured.append(measurement)
        runs.append((measurement, watch, work, calls))

    plain = functools.partial(operations.plain, op)
    compute = functools.partial(operations.call, op)
    add(BASELINE, "cpu", functools.partial(plain, np, operands), traffic, problem.flops)
    if "cpu" in places:
        on_cpu = functools.partial(compute, operands, device="cpu")
        verify(op, operands, on_cpu(), "CPU", {})
        add("gpugrad CPU", "cpu", on_cpu, traffic, problem.flops)
    if "gpu" in places:
        import cupy

        near = {name: cupy.asarray(one) for name, one in operands.items()}
        on_gpu = functools.partial(compute, near, device="gpu")
        results = on_gpu()

        def copy_in() -> object:
            return [cupy.asarray(one) for one in operands.values()]

        def copy_back() -> operations.Arrays:
            return {name: one.get() for name, one in results.items()}

        verify(op, operands, copy_back(), "GPU", operations.planes(op, near, device="gpu"))
        add("gpugrad GPU", "gpu", on_gpu, traffic, problem.flops)
        add("CuPy", "gpu", functools.partial(plain, cupy, near), traffic, problem.flops)
        add("copy to GPU", "gpu", copy_in, problem.bytes_in)
        add("copy back", "gpu", copy_back, problem.bytes_out)
    for _ in range(repeat):
        for measurement, watch, work, calls in runs:
            with watch:
                for _ in range(calls):
                    work()
            measurement.samples.append(watch.last / calls)


# ---- printing


def _results(measured: Iterable[Measurement]) -> Iterator[dict[str, Any]]:
    baselines = {one.case: one for one in measured if one.what == BASELINE}
    for one in measured:
        low, median, high = one.quartiles()
        op, dtype, (n, k, m) = one.case
        yield {
            "op": op,
            "dtype": dtype.name,
            "n": n,
            "k": k,
            "m": m,
            "what": one.what,
            "seconds": median,
            "quartiles": [low, high],
            "samples": len(one.samples),
            "bytes": one.bytes,
            "flops": one.flops,
            "gb_per_second": 1e-9 * one.bytes / median,
            "gflop_per_second": 1e-9 * one.flops / median,
            "speedup": None if _is_copy(one) else baselines[one.case].quartiles()[1] / median,
        }


def _print(measured: Sequence[Measurement]) -> None:
    columns = (
        terminal.Column("computed by"),
        terminal.Column("median", right=True),
        terminal.Column("speed-up", right=True),
        terminal.Column("quartiles", right=True, optional=True),
        terminal.Column("GB/s", right=True, optional=True),
        terminal.Column("GFLOP/s", right=True, optional=True),
    )
    sections: dict[str, list[tuple[str, ...]]] = {}
    for one, result in zip(measured, _results(measured), strict=True):
        median, (low, high), speedup = result["seconds"], result["quartiles"], result["speedup"]
        row = (
            one.what,
            terminal.seconds(median),
            "" if speedup is None else f"{terminal.digits(speedup)} ×",
            f"{terminal.seconds(low)} – {terminal.seconds(high)}",
            terminal.digits(result["gb_per_second"]),
            terminal.digits(result["gflop_per_second"]) if one.flops else "",
        )
        sections.setdefault(_title(*one.case), []).append(row)
    console = terminal.stdout()
    terminal.table(console, columns, sections.items())
    console.print(
        f"Medians; quartiles and rates beside them. Speed-up is over plain {BASELINE} expressions, "
        "without copies to and from a GPU. Sizes are rows × inputs × outputs."
    )


def _is_copy(one: Measurement) -> bool:
    return one.what.startswith("copy")


def _title(op: str, dtype: np.dtype[Any], size: operations.Size) -> str:
    return f"{op} {dtype.name} {' × '.join(map(str, size))}"
