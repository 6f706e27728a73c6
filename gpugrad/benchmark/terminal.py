"""Tables for people, JSON for machines, progress on stderr."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

import gpugrad

# Only a terminal's own named colours, which suit its background whether dark or light.
GOOD, BAD, ACCENT = "green", "bold red", "bold cyan"
GAP = 2  # before each column of a table


@dataclass(frozen=True)
class Column:
    """A column of a table; optional ones are left out where the terminal is too narrow."""

    title: str
    right: bool = False
    optional: bool = False


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def progress() -> Progress:
    """Return a progress bar on stderr, drawn by `update`, and only if stderr is a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(bar_width=None if console.width > 60 else 10),
        MofNCompleteColumn(),
        console=console,
        auto_refresh=False,  # no thread beside what is timed: drawn when told to
        transient=True,
        disable=not console.is_terminal,
    )


def table(
    console: Console,
    columns: Sequence[Column],
    sections: Iterable[tuple[str, Sequence[Sequence[str]]]],
) -> None:
    """Print rows under the titles of their sections, without optional columns that do not fit.

    Parameters
    ----------
    console : Console
    columns : sequence of Column
    sections : iterable of (title, rows)
        A row has a string, with Rich markup, for each column.
    """
    parts = list(sections)
    widths = [cell_len(column.title) for column in columns]
    for row in itertools.chain.from_iterable(rows for _, rows in parts):
        widths = [
            max(width, Text.from_markup(cell).cell_len)
            for width, cell in zip(widths, row, strict=True)
        ]
    kept = list(range(len(columns)))
    while sum(widths[index] + GAP for index in kept) > console.width:
        optional = [index for index in kept if columns[index].optional]
        if not optional:
            break
        kept.remove(optional[-1])

    def line(row: Sequence[str], style: str = "") -> Text:
        result = Text(style=style)
        for index in kept:
            cell = Text.from_markup(row[index])
            room = " " * (widths[index] - cell.cell_len)
            result.append(" " * GAP)
            result.append_text(Text(room) + cell if columns[index].right else cell + Text(room))
        result.rstrip()
        return result

    console.print(line([column.title for column in columns], "bold"))
    for title, rows in parts:
        console.print(title, style=ACCENT)
        for row in rows:
            console.print(line(row))


def facts(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values, beside each other or, in a narrow terminal, below."""
    if console.width < 60:
        for name, value in rows:
            console.print(f"[bold]{name}[/]")
            console.print(Padding(value, (0, 0, 0, 2)))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console.print(grid)


def print_json(command: str, content: Mapping[str, Any]) -> None:
    """Print one JSON document; numbers that are not finite become null."""
    document = {"command": command, "gpugrad": gpugrad.__version__, **content}
    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def seconds(value: float) -> str:
    """Write a time with three digits and a unit."""
    unit, scale = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("µs", 1e6)
    return f"{digits(value * scale)} {unit}"


def size(count: float) -> str:
    """Write a number of bytes with three digits and a unit."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(max(0, len(str(int(count))) - 1) // 3, len(units) - 1)
    return f"{digits(count / 1000**power) if power else count} {units[power]}"


def digits(value: float) -> str:
    """Write a positive number with three digits and no exponent."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
