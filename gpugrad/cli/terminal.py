"""Tables for people, JSON for machines, progress on stderr."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

import gpugrad
from gpugrad.benchmark.tables import Column

# Only a terminal's own named colours, which suit its background whether dark or light.
GOOD, BAD, ACCENT = "green", "bold red", "bold cyan"
GAP = 2  # before each column of a table


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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
