"""gpugrad check: every operation and dtype on this machine against a more precise reference."""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.markup import escape

import gpugrad
from gpugrad import dispatch
from gpugrad.arrays import kinds
from gpugrad.benchmark.tables import Column
from gpugrad.cli import arguments as numbers
from gpugrad.cli import exits, terminal
from gpugrad.cli.devices import devices, why_no_gpu
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations, reference, worst_element

SIZES = (
    (1, 1, 1),
    (0, 5, 7),
    (31, 33, 1),
    (64, 64, 64),
    (65, 17, 129),
    (257, 131, 67),
    (1031, 2, 3),  # the batch is split
    (2053, 64, 10),
    (385, 129, 193),
)
SPREADS = {"ordinary": 1.0, "saturated": 40.0}  # of the logits


@dataclass
class Finding:
    """The worst result of an operation in a dtype on a device, over all sizes and spreads.

    `error` and `bound` are those of the element whose error is the largest part of its bound,
    and `ratio` is that part; `where` says which result of which case it belongs to.
    """

    op: str
    dtype: str
    device: str
    error: float = 0.0
    bound: float = 0.0
    ratio: float = 0.0
    where: str = ""
    exception: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every result was within its bound."""
        return self.exception is None and self.ratio <= 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--device",
        choices=dispatch.DEVICES,
        default="auto",
        help="where to compute; auto is GPUGRAD_DEVICE, or else every device there is",
    )
    parser.add_argument(
        "--op", action="append", choices=tuple(OPERATIONS), help="(repeatable; all)"
    )
    parser.add_argument(
        "--dtype", action="append", choices=kinds.DTYPES, help="(repeatable; all that there are)"
    )
    parser.add_argument("--seed", type=numbers.seed, default=0, help="of the random inputs (0)")


def run(arguments: argparse.Namespace) -> int:
    """Check, print what was found, and fail if a result is outside its bound."""
    targets = devices(arguments.device)
    ops = tuple(dict.fromkeys(arguments.op or OPERATIONS))
    findings: list[Finding] = []
    with terminal.progress() as progress:
        names = tuple(dict.fromkeys(arguments.dtype or _available_dtypes()))
        dtypes = [operations.dtype_of(name) for name in names]
        task = progress.add_task("checking", total=len(ops) * len(dtypes))
        for op in ops:
            for dtype in dtypes:
                progress.update(task, description=f"{op} {dtype.name}", refresh=True)
                findings += _check(op, dtype, targets, arguments.seed)
                progress.update(task, advance=1, refresh=True)
    if arguments.json:
        results = [{**asdict(finding), "ok": finding.ok} for finding in findings]
        terminal.print_json("check", {"ok": _all_ok(findings), "results": results})
    else:
        _print(findings, targets, arguments.device)
    return exits.OK if _all_ok(findings) else exits.FAILED


def _all_ok(findings: Iterable[Finding]) -> bool:
    return all(finding.ok for finding in findings)


def _available_dtypes() -> Iterator[str]:
    for name in kinds.DTYPES:
        try:
            operations.dtype_of(name)
        except gpugrad.ArgumentError:  # bfloat16 without ml_dtypes
            continue
        yield name


def _check(op: str, dtype: np.dtype[Any], targets: tuple[str, ...], seed: int) -> list[Finding]:
    """Run all cases of an operation in a dtype on each device."""
    findings = [Finding(op, dtype.name, device) for device in targets]
    for size in SIZES:
        for (spread_name, spread), from_z in itertools.product(SPREADS.items(), (False, True)):
            if from_z and not OPERATIONS[op].takes_z:
                continue
            operands = operations.random_operands(
                op, size, dtype, seed=seed, spread=spread, from_z=from_z
            )
            case = f"n = {size[0]}, k = {size[1]}, m = {size[2]}, {spread_name} logits"
            for finding in findings:
                if finding.exception is None:
                    _compare(finding, operands, case + (" given" if from_z else ""))
    return findings


def _compare(finding: Finding, operands: operations.Arrays, case: str) -> None:
    """Call the operation and keep what is worse than what was found before."""
    op = finding.op
    try:
        results = operations.call(op, operands, device=finding.device)
        planes = operations.planes(op, operands, device=finding.device)
    except Exception as error:  # whatever a broken device raises is a finding
        finding.exception = f"{type(error).__name__}: {error}"
        finding.where = case
        return
    for name, answer in reference(op, planes=planes, **operands).items():
        worst = worst_element(results[name], answer)
        if worst.ratio > finding.ratio or not finding.where:
            finding.error, finding.bound, finding.ratio = worst.error, worst.bound, worst.ratio
            finding.where = f"{name} at {case}"


def _print(findings: list[Finding], targets: tuple[str, ...], wanted: str) -> None:
    console = terminal.stdout()
    columns = (
        Column("dtype"),
        Column("on"),
        Column("ok"),
        Column("err/bound", right=True),
        Column("error", right=True, optional=True),
        Column("bound", right=True, optional=True),
    )
    sections = [
        (op, [_row(finding) for finding in group])
        for op, group in itertools.groupby(findings, key=lambda finding: finding.op)
    ]
    terminal.table(console, columns, sections)
    for finding in findings:
        if not finding.ok:
            what = finding.exception or f"{finding.ratio:.3g} times its bound away"
            name = f"{finding.op} {finding.dtype} {finding.device}"
            console.print(f"[{terminal.BAD}]{name}[/]: {escape(what)} ({escape(finding.where)})")
    good = sum(finding.ok for finding in findings)
    console.print(f"{good} of {len(findings)} within their bounds, on {' and '.join(targets)}.")
    if wanted == "auto" and "gpu" not in targets:
        console.print(f"The GPU was not checked: {escape(why_no_gpu())}.")


def _row(finding: Finding) -> tuple[str, ...]:
    mark = f"[{terminal.GOOD}]yes[/]" if finding.ok else f"[{terminal.BAD}]no[/]"
    numbers = (f"{finding.ratio:.2f}", f"{finding.error:.1e}", f"{finding.bound:.1e}")
    if finding.exception is not None:
        numbers = ("–", "–", "–")
    return (finding.dtype, finding.device, mark, *numbers)
