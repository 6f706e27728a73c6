"""gpugrad bench: time the CPU, the GPU where there is one, and other libraries beside them."""

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from gpugrad import dispatch
from gpugrad.arrays import kinds
from gpugrad.benchmark import (
    cases,
    environment,
    output,
    peers,
    roofline,
    rows,
    sizes,
    stages,
    tables,
)
from gpugrad.benchmark.document import Findings
from gpugrad.benchmark.load import Watch
from gpugrad.benchmark.measure import OURS, Measured, measure
from gpugrad.benchmark.timer import MIN_ROUNDS, TimeBudget
from gpugrad.cli import arguments as numbers
from gpugrad.cli import exits, terminal
from gpugrad.cli.devices import devices
from gpugrad.errors import AccuracyError, ArgumentError
from gpugrad.gpu.availability import installed
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations

OP, ALL = "dense_sigmoid_backward", "all"
PRECISIONS = ("highest", "high", "medium", "ieee")
ROUNDS, SECONDS = 15, 6

Write = Callable[[bytes], None]
Step = tuple[str, Callable[[], None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--op", action="append", choices=(*OPERATIONS, ALL), help=f"(repeatable; {OP})"
    )
    parser.add_argument(
        "--size",
        action="append",
        type=numbers.layer,
        metavar="SIZE",
        help="rows, inputs and outputs of the layer as N,K,M, or one of "
        f"{', '.join(sizes.PRESETS)} (repeatable; {', '.join(sizes.DEFAULT)})",
    )
    parser.add_argument(
        "--dtype", action="append", choices=kinds.DTYPES, help="(repeatable; float32)"
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="of float32 products on a GPU (repeatable; highest)",
    )
    parser.add_argument(
        "--against",
        action="extend",
        type=_peers_named,
        metavar="PEERS",
        help=f"some of {','.join(peers.PEERS)} (all that are installed and can be used)",
    )
    parser.add_argument(
        "--device",
        choices=dispatch.DEVICES,
        default="auto",
        help="where the library computes; auto is GPUGRAD_DEVICE, or else every device there is",
    )
    parser.add_argument(
        "--repeat", type=numbers.count, default=ROUNDS, metavar="R", help=f"samples ({ROUNDS})"
    )
    parser.add_argument(
        "--seconds",
        type=numbers.count,
        default=SECONDS,
        metavar="S",
        help=f"for each case, after which {MIN_ROUNDS} samples suffice ({SECONDS})",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail if other processes load the machine, or the rounds differ much",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the results")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="write a page of them")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and draw; after Ctrl-C, what was measured before it."""
    places = devices(arguments.device)
    wanted = peers.chosen(tuple(dict.fromkeys(arguments.against)) if arguments.against else None)
    chosen, left_out = _that_fit(_cases(arguments), places, wanted, asked=bool(arguments.size))
    with ExitStack() as stack:
        plot, html = _outputs(arguments, stack)
        findings = Findings(environment.collect(places, wanted))
        findings.measured = [Measured(case) for case in chosen] + left_out
        drawn = plot is not None or html is not None
        budget = TimeBudget(arguments.repeat, arguments.seconds)
        end: BaseException | None = None
        watch = Watch()
        try:
            _measure_all(findings, places, wanted, budget, drawn=drawn)
        except (KeyboardInterrupt, MemoryError, AccuracyError) as error:  # keep what there is
            end, findings.stopped = error, _words(error)
        findings.load = watch.stop(findings.spreads())
        document = findings.document()
        try:
            _show(document, as_json=arguments.json)
        finally:
            _draw(document, plot, html)
    if end is not None:
        raise end
    warnings = findings.load.warnings()
    if arguments.strict and warnings:
        raise exits.Failed(f"--strict: {' '.join(warnings)}")
    return exits.OK


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json("bench", document)
    elif document["results"]:
        _print(document)


def _print(document: Mapping[str, Any]) -> None:
    """Print the results for people."""
    console = terminal.stdout()
    columns = tables.titles(document)
    painted = [
        (escape(title), [_painted(row) for row in rows])
        for title, rows in tables.sections(document)
    ]
    terminal.table(console, columns, painted)
    for line in tables.notes(document):
        console.print(escape(line), style=terminal.BAD if line.startswith("Warning") else None)


def _painted(row: tuple[str, ...]) -> tuple[str, ...]:
    """Colour the library's own rows, and say in colour which speed-ups are none."""
    name, *cells = row
    if name in OURS.values():
        return (f"[{terminal.GOOD}]{name}[/]", *cells)
    return (name, *(f"[{terminal.BAD}]{cell}[/]" if _slower(cell) else cell for cell in cells))


def _slower(cell: str) -> bool:
    return cell.endswith("×") and float(cell.removesuffix("×")) < 1


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "out of memory" if isinstance(error, MemoryError) else str(error)


def _peers_named(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in peers.PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(peers.PEERS)}")
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names none of {', '.join(peers.PEERS)}")
    return names


def _cases(arguments: argparse.Namespace) -> list[cases.Case]:
    ops = dict.fromkeys(arguments.op or (OP,))
    dtypes = list(dict.fromkeys(arguments.dtype or ("float32",)))
    for name in dtypes:
        operations.dtype_of(name)  # needs what may be missing
    return cases.product(
        list(OPERATIONS if ALL in ops else ops),
        dtypes,
        list(dict.fromkeys(arguments.precision or ("highest",))),
        list(dict.fromkeys(arguments.size or (sizes.PRESETS[one] for one in sizes.DEFAULT))),
    )


def _that_fit(
    chosen: list[cases.Case],
    places: tuple[str, ...],
    wanted: list[peers.Peer],
    *,
    asked: bool,
) -> tuple[list[cases.Case], list[Measured]]:
    """Refuse what does not fit into memory; leave it out if it was not asked for."""
    found: list[cases.Case] = []
    left_out: list[Measured] = []
    for case in chosen:
        try:
            cases.refuse_too_large(case, places, wanted)
        except ArgumentError as reason:
            if asked:
                raise
            left_out.append(Measured(case, left_out={str(case): str(reason)}))
        else:
            found.append(case)
    return found, left_out


def _outputs(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Write | None, Write | None]:
    """Find out before the work whether the figures can be drawn and written."""
    found: list[Write | None] = []
    options = (("--plot", arguments.plot, ".png"), ("--html", arguments.html, ".html"))
    for option, path, suffix in options:
        if path is not None and path.suffix.lower() != suffix:
            raise exits.Unusable(f"{option}: {path} does not end in {suffix}")
        if path is not None and not installed("matplotlib"):
            raise exits.Unusable(
                f"{option}: Matplotlib is not installed; pip install 'gpugrad[bench]' installs it"
            )
    for option, path, _ in options:
        write = None if path is None else stack.enter_context(output.reserved(path, option))
        found.append(write)
    return found[0], found[1]


def _measure_all(
    findings: Findings,
    places: tuple[str, ...],
    wanted: list[peers.Peer],
    budget: TimeBudget,
    *,
    drawn: bool,
) -> None:
    """Measure all cases, and then what figures need beside them."""
    to_do = [one for one in findings.measured if not one.left_out]
    steps: list[Step] = [
        (str(one.case), partial(_measure, one, places, wanted, budget)) for one in to_do
    ]
    if drawn and to_do:
        steps += _figure_steps(findings, [one.case for one in to_do], places, wanted)
    with terminal.progress() as progress:
        task = progress.add_task("measuring", total=len(steps))
        for title, step in steps:
            progress.update(task, description=title, refresh=True)
            step()
            progress.update(task, advance=1, refresh=True)


def _measure(
    one: Measured, places: tuple[str, ...], wanted: list[peers.Peer], budget: TimeBudget
) -> None:
    measure(one, places, wanted, budget)


def _figure_steps(
    findings: Findings,
    chosen: list[cases.Case],
    places: tuple[str, ...],
    wanted: list[peers.Peer],
) -> Iterator[Step]:
    for dtype in dict.fromkeys(case.dtype for case in chosen):
        yield f"roof {dtype}", partial(roofline.measure, dtype, places, wanted, findings.rooflines)
    for case, place in itertools.product(chosen, places):
        if case.op == stages.OP:
            yield f"stages {case}", partial(stages.measure, case, place, findings.stages)
    layer = max(chosen, key=lambda case: case.size[1] * case.size[2])
    _, k, m = layer.size
    findings.rows_of = {"op": layer.op, "dtype": layer.dtype, "k": k, "m": m}
    for n in rows.counts(layer):
        yield f"{n} rows", partial(rows.measure, layer, n, places, findings.rows)


def _draw(document: dict[str, Any], plot: Write | None, html: Write | None) -> None:
    if plot is not None:
        from gpugrad.benchmark import figures

        plot(figures.png(document))
    if html is not None:
        from gpugrad.benchmark import page

        html(page.render(document).encode())
