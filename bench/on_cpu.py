"""Times on this machine's CPU beside NumPy's, PyTorch's and JAX's, for bench/results/.

Three runs of `gpugrad bench` over the layers that count, each in a process of its own, and one over
a grid of shapes against NumPy; then what the BLAS and the memory allow those layers. Exit codes: 0
all went well, 1 a run failed, there was no time for it, or with --strict the machine was busy,
2 a bad argument, 130 interrupted.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import bounds, command, environment, section
from gpugrad.benchmark.load import warned
from gpugrad.benchmark.timer import TimeBudget
from gpugrad.testing.operations import Size

FORMAT = 1  # of the JSON document; raised when a reader would have to change
KIND = "cpu"
OP = "dense_sigmoid_backward"
SECONDS = 900.0  # of all runs: a limit, not what they should take
DROPPED = ("gb_per_second", "gflop_per_second", "op")  # of each result: they follow from others


@dataclass(frozen=True)
class Scope:
    """What a run of this command measures.

    Attributes
    ----------
    layers : tuple of str
        Presets of `gpugrad bench`.
    dtypes : tuple of str
    runs : int
    rows, extents : tuple
        Of the grid: rows, and (inputs, outputs).
    limits : tuple of str
        Options that bound the samples of each case, of a layer and of the grid.
    budget : TimeBudget
        For the bounds of each layer and dtype.
    """

    layers: tuple[str, ...]
    dtypes: tuple[str, ...]
    runs: int
    rows: tuple[int, ...]
    extents: tuple[tuple[int, int], ...]
    limits: tuple[tuple[str, ...], tuple[str, ...]]
    budget: TimeBudget

    @property
    def grid(self) -> list[Size]:
        """The grid's shapes."""
        return [(n, k, m) for k, m in self.extents for n in self.rows]


WHOLE = Scope(
    layers=("tabular", "tall", "square", "tiny"),
    dtypes=("float32", "float64", "bfloat16"),
    runs=3,
    rows=(1, 16, 128, 1024, 4096, 16384),
    extents=((64, 10), (64, 64), (256, 256), (1024, 256), (1024, 1024)),
    limits=(("--seconds", "4"), ("--seconds", "2")),
    budget=TimeBudget(rounds=15, seconds=6.0),
)
QUICK = Scope(
    layers=("digits", "tiny"),
    dtypes=("float32",),
    runs=2,
    rows=(1, 16),
    extents=((64, 10),),
    limits=(("--repeat", "2"), ("--repeat", "2")),
    budget=TimeBudget(rounds=2, seconds=1.0),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the document; return the exit code."""
    parser = command.parser(
        "bench.on_cpu", __doc__, quick="a trial of seconds, for no table", folder=True
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail if other processes load the machine"
    )
    arguments = parser.parse_args(argv)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"bench.on_cpu: --output: {error}", file=sys.stderr)
        return 2

    def measured() -> dict[str, Any]:
        document = command.head(KIND, FORMAT, quick=arguments.quick, commit=arguments.commit)
        environment.tell_of_slow_kernels()
        run_all(document, QUICK if arguments.quick else WHOLE)
        return document

    def show(document: Mapping[str, Any]) -> int:
        warnings = warned(document["load"])
        for warning in warnings:
            print(f"bench.on_cpu: warning: {warning}", file=sys.stderr)
        return int(arguments.strict and bool(warnings))

    path = arguments.output / command.file_name(KIND, quick=arguments.quick)
    return command.run("bench.on_cpu", path, measured, show)


def run_all(document: dict[str, Any], scope: Scope) -> None:
    """Run everything into the document.

    Raises
    ------
    RuntimeError
        A run failed, or there is no time for it.
    """
    document |= {"environment": {}, "runs": [], "grid": [], "bounds": [], "load": []}
    end = time.monotonic() + SECONDS
    dtypes = [word for dtype in scope.dtypes for word in ("--dtype", dtype)]
    layers = [word for name in scope.layers for word in ("--size", name)]
    for index in range(scope.runs):
        print(f"run {index + 1} of {scope.runs} ...", file=sys.stderr, flush=True)
        found = run([*layers, *dtypes, *scope.limits[0]], end - time.monotonic())
        document["environment"] = found["environment"]
        document["runs"].append(kept(found))
        document["load"].append(_short(found["load"]))
    print("grid ...", file=sys.stderr, flush=True)
    shapes = [word for size in scope.grid for word in ("--size", ",".join(map(str, size)))]
    found = run([*shapes, "--against", "numpy", *scope.limits[1]], end - time.monotonic())
    document["grid"] = kept(found)
    document["load"].append(_short(found["load"]))
    document["bounds"] = _short(bounds.measure(scope.layers, scope.dtypes, scope.budget))


def run(options: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run `gpugrad bench` in a process of its own and give its document."""
    words = ["-m", "gpugrad", "bench", "--json", "--device", "cpu", "--op", OP]
    code, text = section.run_python([*words, *options], max(1.0, seconds))
    if code is None:
        raise RuntimeError(f"the runs take longer than {SECONDS:.0f} s")
    if code:
        last = text.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"a run ended with exit code {code}: {last[0]}")
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def kept(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results without what follows from the rest, numbers with five digits."""
    return [
        {name: _short(value) for name, value in one.items() if name not in DROPPED}
        for one in found["results"]
    ]


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
