"""What a call on CuPy arrays costs the host, from Python to the launch: planned anew, and repeated.

    python -m bench.host_cost [--quick] [--output FILE]

It is the cost of calls that do not wait for each other, the driver's included. Without a GPU a
driver can be played that launches nothing; its own part is then small, and not that of a real one:

    python -m tests.driver --idle python -m bench.host_cost

Exit codes: 0 all went well, 2 a bad argument or no GPU, 130 interrupted.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gpugrad
from bench import command, report, section
from gpugrad import dispatch
from gpugrad.benchmark import samples
from gpugrad.benchmark.environment import collect
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave, prepared
from gpugrad.calls import cache
from gpugrad.errors import DeviceError
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations

FORMAT = 3  # of the JSON document; raised when a reader would have to change
KIND = "host-cost"
CALLS = ANEW, REPEATED, BUFFERS = ("planned anew", "repeated", "repeated, out=")
ONE_LAUNCH, SEVERAL = (256, 64, 64), (256, 512, 512)
SECONDS = {True: 0.05, False: 0.5}  # of a row, by `quick`
RESERVE = 4.0  # seconds that a row may take, with kernels that have to be compiled


def rows() -> list[tuple[str, operations.Size]]:
    """List what is measured."""
    small = [(op, ONE_LAUNCH) for op in OPERATIONS]
    return [*small, *((op, SEVERAL) for op in OPERATIONS if op.startswith(("dense", "matmul")))]


def time_row(
    op: str,
    size: operations.Size,
    seconds: float,
) -> dict[str, Any]:
    """Time the kinds of calls of an operation, interleaved."""
    import cupy

    operands, results = (
        [cupy.empty(shape, "float32") for shape in shapes(op, size).values()]
        for shapes in (operations.shapes, operations.result_shapes)
    )
    out = tuple(results) if len(results) > 1 else results[0]
    plain = functools.partial(getattr(gpugrad, op), *operands)
    with_out = functools.partial(plain, out=out)

    def anew() -> None:
        cache.clear()
        plain()

    candidates = [
        Candidate(ANEW, anew, "gpu"),
        Candidate(REPEATED, plain, "gpu", functools.partial(prepared, plain)),
        Candidate(BUFFERS, with_out, "gpu", functools.partial(prepared, with_out)),
    ]
    interleave(candidates, TimeBudget(60, seconds, min_rounds=7, rests=False))
    n, k, m = size
    times = {one.name: asdict(samples.summarize(one.host)) for one in candidates}
    return {"op": op, "n": n, "k": k, "m": m, "dtype": "float32", "seconds": times}


def measure(
    into: list[dict[str, Any]],
    *,
    quick: bool,
    left: Callable[[], float],
    begin: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure all rows that there is time for."""
    for op, size in rows():
        if left() > RESERVE:
            begin(f"{op} {'x'.join(map(str, size))}")
            into.append(time_row(op, size, SECONDS[quick]))


def work(section_: section.Section) -> None:
    """Measure on a GPU, as a part of bench.on_gpu."""
    found: list[dict[str, Any]] = []
    section_.data |= {"rows": found, "gpu": dispatch.runtime().facts(None).name}
    measure(found, quick=section_.quick, left=section_.left, begin=section_.begin)
    if len(found) < len(rows()):
        section_.unfinished = f"no time for {len(rows()) - len(found)} rows"
    told = [one for one in found if one["op"] == "dense_sigmoid_backward"]
    if told:
        times = [report.seconds(told[0]["seconds"][kind]["median"]) for kind in CALLS[:2]]
        section_.summary = "dense_sigmoid_backward {} planned anew, {} repeated".format(*times)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the document, print a table; return the exit code."""
    parser = command.parser(
        "bench.host_cost", __doc__, quick="a trial of a second, for no table", folder=False
    )
    arguments = parser.parse_args(argv)

    def measured() -> dict[str, Any]:
        missing = dispatch.gpu_missing()
        if missing is not None:
            raise DeviceError(f"{missing}; or let one be played, as --help says")
        head = command.head(KIND, FORMAT, quick=arguments.quick, commit=arguments.commit)
        found: list[dict[str, Any]] = []
        measure(found, quick=arguments.quick, left=lambda: float("inf"))
        gpu = dispatch.runtime().facts(None).name
        return {**head, "environment": collect(("cpu",), []), "rows": found, "gpu": gpu}

    def show(document: Mapping[str, Any]) -> int:
        print(report.host(document))
        return 0

    path = arguments.output or command.RESULTS / command.file_name(KIND, quick=arguments.quick)
    return command.run("bench.host_cost", path, measured, show)


if __name__ == "__main__":
    if "--into" in sys.argv:  # a section
        section.main(work)
    else:
        sys.exit(main())
