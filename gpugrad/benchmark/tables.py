"""The results as tables: rows of text that a terminal and a page show alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpugrad.benchmark import environment, units
from gpugrad.benchmark.measure import OURS

Document = Mapping[str, Any]
Section = tuple[str, list[tuple[str, ...]]]


@dataclass(frozen=True)
class Column:
    """A column of a table; optional ones are left out where the terminal is too narrow."""

    title: str
    right: bool = False
    optional: bool = False


def own(document: Document) -> list[str]:
    """Name the library's own candidates that were timed."""
    timed = {one["what"] for one in document["results"]}
    return [name for name in OURS.values() if name in timed]


def titles(document: Document) -> tuple[Column, ...]:
    """Return the columns; a speed-up for each device that the library was timed on."""
    ours = own(document)
    speed_ups = ["speed-up"] if len(ours) < 2 else [f"{name.split()[1]} ×" for name in ours]
    return (
        Column("by"),
        Column("time", right=True),
        *(Column(title, right=True) for title in speed_ups),
        Column("error", right=True),
        Column("quartiles", right=True, optional=True),
        Column("GB/s", right=True, optional=True),
        Column("GFLOP/s", right=True, optional=True),
    )


def sections(document: Document) -> list[Section]:
    """Return a title and rows for each case."""
    cases: dict[str, list[Document]] = {}
    for one in document["results"]:
        cases.setdefault(title(one), []).append(one)
    ours = own(document)
    return [(name, list(_rows(results, ours))) for name, results in cases.items()]


def title(result: Document) -> str:
    """Name a case."""
    precision = [] if result["precision"] == "highest" else [result["precision"]]
    size = f"{result['n']} × {result['k']} × {result['m']}"
    preset = [f"({result['preset']})"] if result["preset"] else []
    return " ".join([result["op"], result["dtype"], *precision, size, *preset])


def _rows(results: Sequence[Document], ours: Sequence[str]) -> Iterator[tuple[str, ...]]:
    ratios = {one["what"]: one["ratios"] for one in results if one["role"] == "gpugrad"}
    for one in results:
        cells = [ratios.get(name, {}).get(one["what"]) for name in ours] or [None]
        error = one.get("error")
        low, high = one["quartiles"]
        yield (
            one["what"],
            units.seconds(one["seconds"]),
            *("" if cell is None else f"{units.digits(cell['ratio'])} ×" for cell in cells),
            "" if error is None else units.scientific(error),
            f"{units.seconds(low)} – {units.seconds(high)}",
            units.digits(one["gb_per_second"]),
            units.digits(one["gflop_per_second"]) if one["flops"] else "",
        )


def notes(document: Document) -> Iterator[str]:
    """Return what the columns mean, where it was measured, and what was left out and why."""
    yield (
        "Medians. Speed-up: how many times as long as gpugrad's it took. Error: max |error| / "
        "max |exact| of the worst result, on some rows and columns. Sizes: rows × inputs × outputs."
    )
    for warning in document["load"]["warnings"]:
        yield f"Warning: {warning}"
    seen = {one["what"] for one in document["results"]}
    if seen & {"PyTorch", "JAX"}:
        yield "PyTorch and JAX go backwards through a forward pass of their own, made before."
    if "copy to GPU" in seen:
        yield "Times on a GPU are without copies to it and back."
    facts = document["environment"]
    yield f"{environment.device(facts)}: {environment.software(facts)}."
    if facts["gpu"] is None and facts["no_gpu_because"]:
        yield f"No GPU: {facts['no_gpu_because']}."
    reasons = {(one["what"], one["reason"]): None for one in document["left_out"]}
    for what, reason in reasons:
        yield f"{what} was left out: {reason}"
    if document["stopped"]:
        yield f"This is what had been measured before it was stopped: {document['stopped']}."
