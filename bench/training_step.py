"""A training step of SigmoidLinear beside one of nn.Linear and nn.Sigmoid, on this machine's CPU.

    python -m bench.training_step [--quick] [--output FILE]

A step is a forward and a backward pass, eager, with gradients of x, weight and bias. Timings of
both modules are interleaved in one process; the memory of a step is measured in a process of its
own. Exit codes: 0 all went well, 1 it failed, 2 a bad argument or no PyTorch, 130 interrupted.
"""

import argparse
import contextlib
import gc
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import command, environment, report, section
from gpugrad.benchmark import samples, units
from gpugrad.benchmark.environment import collect, device
from gpugrad.benchmark.peers import PEERS
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave
from gpugrad.errors import ArgumentError

FORMAT = 1  # of the JSON document; raised when a reader would have to change
KIND = "training-step"
OURS, THEIRS = MODULES = ("gpugrad", "PyTorch")
MEMORY_SECONDS = 120.0  # of a process that makes one step: a limit, not what it should take


class Case(NamedTuple):
    """A layer, and the dtype of everything."""

    n: int
    k: int
    m: int
    dtype: str = "float32"


@dataclass(frozen=True)
class Scope:
    """What a run of this command measures: the times of cases, and the memory of one of them."""

    cases: tuple[Case, ...]
    memory: Case
    budget: TimeBudget


TALL = Case(200_000, 128, 128)
WHOLE = Scope(
    cases=(
        Case(64, 64, 64),
        Case(256, 784, 128),
        Case(4096, 256, 256),
        Case(65_536, 64, 64),
        TALL,
        Case(4096, 256, 256, "bfloat16"),
        TALL._replace(dtype="bfloat16"),
    ),
    memory=TALL,
    budget=TimeBudget(rounds=40, seconds=20.0),
)
QUICK = Scope(
    cases=(Case(64, 64, 64), Case(512, 64, 64, "bfloat16")),
    memory=Case(16_384, 384, 384),
    budget=TimeBudget(rounds=3, seconds=1.0),
)


class Step:
    """A training step of one of the modules: called, it leaves gradients of x, weight and bias."""

    def __init__(self, name: str, x: Any, dy: Any) -> None:
        import torch

        from gpugrad.torch import SigmoidLinear

        k, m = x.shape[-1], dy.shape[-1]
        torch.manual_seed(0)
        self.module = (
            SigmoidLinear(k, m, dtype=x.dtype)
            if name == OURS
            else torch.nn.Sequential(torch.nn.Linear(k, m, dtype=x.dtype), torch.nn.Sigmoid())
        )
        self.x, self.dy = x, dy
        self.leaves = [x, *self.module.parameters()]

    def __call__(self) -> None:
        """Make the step."""
        for leaf in self.leaves:
            leaf.grad = None  # as an optimizer's zero_grad
        self.module(self.x).backward(self.dy)


def operands(case: Case) -> tuple[Any, Any]:
    """Draw x and dy."""
    import torch

    dtype = getattr(torch, case.dtype)
    torch.manual_seed(1)
    x = torch.randn(case.n, case.k, dtype=dtype, requires_grad=True)
    return x, torch.randn(case.n, case.m, dtype=dtype)


# ---- time


def time_of_steps(case: Case, budget: TimeBudget) -> dict[str, Any]:
    """Time both modules, interleaved."""
    x, dy = operands(case)
    candidates = [Candidate(name, Step(name, x, dy)) for name in MODULES]
    interleave(candidates, budget)
    ours, theirs = candidates
    return {
        **case._asdict(),
        "seconds": {one.name: _summary(one.summary) for one in candidates},
        "ratio": _summary(samples.ratio(theirs.samples, ours.samples)),
    }


def _summary(found: samples.Summary) -> dict[str, Any]:
    """Return median, quartiles and number of samples, with five digits."""
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in asdict(found).items()
    }


# ---- memory


def memory_of_a_step(module: str, case: Case) -> int:
    """Return the bytes that a step takes at most, in this process, beyond what lives before it.

    A smaller step comes first, by which libraries are loaded and threads are started. It is large
    enough to be gpugrad's own. What gpugrad keeps from it, some megabytes of scratch, is not
    counted.
    """
    Step(module, *operands(case._replace(n=case.n // 8)))()
    gc.collect()
    step = Step(module, *operands(case))
    before = _forget_the_peak()
    step()
    return _peak() - before


def _forget_the_peak() -> int:
    """Have the peak begin at what is resident now, and tell it."""
    with contextlib.suppress(OSError):  # not on Linux, or not allowed: the peak until now counts
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Return the bytes that were resident at most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(one.split()[1]) for one in lines if one.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_of_both(case: Case, *, quick: bool) -> dict[str, Any]:
    """Measure the memory of a step of each module, in a process of its own.

    Raises
    ------
    RuntimeError
        A process failed or did not end.
    """
    found = {}
    for module in MODULES:
        words = ["-m", "bench.training_step", "--memory-of", module, *["--quick"] * quick]
        code, text = section.run_python(words, MEMORY_SECONDS)
        last = (text.strip().splitlines() or ["no output"])[-1]
        if code != 0:
            how = f"took longer than {MEMORY_SECONDS:.0f} s" if code is None else f"failed: {last}"
            raise RuntimeError(f"a step of {module} in a process of its own {how}")
        found[module] = int(last)
    return {**case._asdict(), "bytes": found}


# ---- the whole


def start(*, quick: bool, commit: str | None) -> dict[str, Any]:
    """Begin the document."""
    facts = collect(("cpu",), [PEERS["torch"]])
    head = command.head(KIND, FORMAT, quick=quick, commit=commit)
    return {**head, "environment": facts, "steps": [], "memory": None}


def run_all(document: dict[str, Any], scope: Scope) -> None:
    """Measure everything into the document: memory first, while no operands are in memory."""
    _tell("memory of a step")
    document["memory"] = memory_of_both(scope.memory, quick=document["quick"])
    for case in scope.cases:
        _tell(" × ".join(map(str, case[:3])) + f", {case.dtype}")
        document["steps"].append(time_of_steps(case, scope.budget))


def _tell(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


TITLES = ("dtype", OURS, THEIRS, f"{THEIRS} / {OURS}")


def figures(step: Mapping[str, Any]) -> list[str]:
    """Write what `TITLES` name of a layer: the medians, and the ratio with its quartiles."""
    ratio, times = step["ratio"], step["seconds"]
    middle, *quartiles = (units.digits(ratio[name]) for name in ("median", "low", "high"))
    return [
        step["dtype"],
        *(units.seconds(times[name]["median"]) for name in MODULES),
        f"{middle} × ({'–'.join(quartiles)})",
    ]


def memory(found: Mapping[str, Any]) -> str:
    """Return the memory of a step of each module in a sentence."""
    ours, theirs = (units.size(found["bytes"][name]) for name in MODULES)
    ratio = units.digits(found["bytes"][THEIRS] / found["bytes"][OURS])
    layer = " × ".join(f"{found[name]:,}".replace(",", "\u00a0") for name in "nkm")
    return (
        f"A step of {layer} in {found['dtype']} takes {ours} of memory beyond operands and "
        f"parameters, that of {THEIRS} {theirs}, {ratio} times as much."
    )


def show(document: Mapping[str, Any]) -> int:
    """Print what was measured."""
    rows = [
        [" × ".join(str(step[name]) for name in "nkm"), *figures(step)]
        for step in document["steps"]
    ]
    print(f"training step on {device(document['environment'])}")
    print(report.table([("layer", *TITLES), *rows], right=range(2, 5)))
    print(memory(document["memory"]))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the document, print a table; return the exit code."""
    parser = command.parser(
        "bench.training_step", __doc__, quick="a trial of seconds, for no table", folder=False
    )
    parser.add_argument("--memory-of", choices=MODULES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    scope = QUICK if arguments.quick else WHOLE
    if arguments.memory_of:
        print(memory_of_a_step(arguments.memory_of, scope.memory))
        return 0

    def measured() -> dict[str, Any]:
        missing = PEERS["torch"].missing()
        if missing:
            raise ArgumentError(missing)
        environment.tell_of_slow_kernels()
        document = start(quick=arguments.quick, commit=arguments.commit)
        run_all(document, scope)
        return document

    path = arguments.output or command.RESULTS / command.file_name(KIND, quick=arguments.quick)
    return command.run("bench.training_step", path, measured, show)


if __name__ == "__main__":
    sys.exit(main())
