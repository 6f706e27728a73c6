"""The measured tables of README.md and docs/performance.md, made from bench/results/*.json.

    python -m bench.measured [--update]

tells which of them are stale, or writes them anew. Exit codes: 0 none is stale, 1 one is.

Results of bench.on_cpu, bench.on_gpu, bench.training_step and bench.host_cost are read; trials of
theirs ("quick"), and what others have put there, are not. Of several results of a kind on a device
the latest counts.
"""

import argparse
import json
import math
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import bounds, host_cost, on_cpu, report, section, training_step
from gpugrad.benchmark import environment
from gpugrad.benchmark.sizes import name_of
from gpugrad.benchmark.units import digits, scientific, seconds
from gpugrad.testing.operations import Size

RESULTS = section.ROOT / "bench" / "results"
BEGIN, END = "<!-- begin: python -m bench.measured --update -->", "<!-- end -->"
BEGIN_HOST = "<!-- begin costs on the host: python -m bench.measured --update -->"
BEGIN_STEPS = "<!-- begin training steps: python -m bench.measured --update -->"
OURS = "gpugrad CPU"
PEERS = ("NumPy", "PyTorch", "torch eager", "JAX")
IN_README = "float32"
NOTHING = "No result of `python -m bench.on_cpu` is in `bench/results/`."
NO_HOST = "No result of `python -m bench.host_cost` is in `bench/results/`."
NO_STEPS = "No result of `python -m bench.training_step` is in `bench/results/`."

BOUNDS = (
    "What the BLAS and the memory allow there, in turns in one process: the two products alone, "
    "of blocks that are in cache, and of whole matrices on the BLAS's threads; to read dy, y and "
    "x and write dx; to have the system hand out the pages of a new dx. The last column is the "
    "faster way to the products, as a part of gpugrad's time with `out=`:"
)
GPU = "gpu"  # the kind of bench.on_gpu's documents, which do not tell it

Document = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.measured", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--update", action="store_true", help="write the tables anew")
    if parser.parse_args(argv).update:
        update()
    names = stale()
    for name in names:
        print(f"{name} is stale: python -m bench.measured --update writes its tables anew")
    return int(bool(names))


def documents(folder: Path = RESULTS) -> dict[str, list[Document]]:
    """Read the results that count, by kind."""
    latest: dict[tuple[str, str], Document] = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = found.get("kind", GPU if "sections" in found else "")
        if kind not in KINDS or found["quick"]:
            continue
        where = found["environment"]
        name = where["device"]["name"] if kind == GPU else where["processor"]
        before = latest.get((kind, name))
        if before is None or before["date"] <= found["date"]:
            latest[kind, name] = found
    return {kind: [one for (of, _), one in latest.items() if of == kind] for kind in KINDS}


# ---- the documents and their places


def readme(on_cpus: Sequence[Document], on_gpus: Sequence[Document]) -> str:
    """Write the README's table: the layers in one dtype."""
    blocks = []
    for one in on_cpus:
        rows = [row for row in layers(one) if row[1] == IN_README]
        blocks += [
            f"`{on_cpu.OP}` in {IN_README} on {environment.device(one['environment'])}: its time, "
            f"and how many times as long others take in the same run ({_when(one)}).",
            table(_titles(one), rows),
        ]
    for one in on_gpus:
        blocks += [_gpu_heading(one), gpu_table(one, only=(on_cpu.OP,))]
    return joined(blocks) or NOTHING


def performance(on_cpus: Sequence[Document], on_gpus: Sequence[Document]) -> str:
    """Write the tables of docs/performance.md: all that was measured."""
    blocks = []
    for one in on_cpus:
        facts = one["environment"]
        blocks += [
            f"**On a CPU: {environment.device(facts)}.** Measured by `python -m bench.on_cpu`, "
            f"{_when(one)}: {environment.software(facts)}. `{on_cpu.OP}`: medians of "
            f"{len(one['runs'])} runs, each in a process of its own; how many times as long others "
            "take, with the least and the most of the runs; max |error| / max |exact| of gpugrad's "
            "worst result.",
            table(_titles(one, errors=True), layers(one, errors=True)),
            grid_summary(one),
            grid(one),
        ]
        if one.get("bounds"):
            blocks += [BOUNDS, bounds_table(one)]
    if not on_cpus:
        blocks.append(f"**On a CPU: nothing yet.** {NOTHING}")
    for one in on_gpus:
        blocks += [_gpu_heading(one), gpu_table(one)]
    return joined(blocks)


def training_steps(of_steps: Sequence[Document]) -> str:
    """Write the table of training steps through PyTorch."""
    blocks = []
    for one in of_steps:
        facts = one["environment"]
        blocks += [
            f"**Training steps on a CPU: {environment.device(facts)}.** Measured by "
            f"`python -m bench.training_step`, {_when(one)}: {environment.software(facts)}. "
            "`SigmoidLinear` beside `nn.Sequential(nn.Linear, nn.Sigmoid)`, forward and backward, "
            "with gradients of x, weight and bias: medians, and how many times as long PyTorch "
            "takes, with the quartiles of the rounds.",
            table(
                ["layer", *training_step.TITLES],
                [[layer(_size(step)), *training_step.figures(step)] for step in one["steps"]],
            ),
            training_step.memory(one["memory"]),
        ]
    return joined(blocks) or NO_STEPS


def host_costs(of_hosts: Sequence[Document]) -> str:
    """Write the table of what calls on CuPy arrays cost the host."""
    blocks = []
    for one in of_hosts:
        facts = one["environment"]
        kinds = list(one["rows"][0]["seconds"])
        rows = [
            [
                f"`{row['op']}`",
                layer(_size(row)),
                *(seconds(row["seconds"][kind]["median"]) for kind in kinds),
            ]
            for row in one["rows"]
        ]
        blocks += [
            f"**A call on CuPy arrays on the host: {environment.device(facts)}, {one['gpu']}.** "
            f"Measured by `python -m bench.host_cost`, {_when(one)}, in float32: medians of the "
            "time until a call has launched.",
            table(["operation", "layer", *kinds], rows),
        ]
    return joined(blocks) or NO_HOST


def joined(blocks: Iterable[str]) -> str:
    """Put paragraphs and tables under each other; paragraphs in lines as the documents have."""
    wrapped = [
        one
        if one.startswith("|")
        else textwrap.fill(one, 100, break_long_words=False, break_on_hyphens=False)
        for one in blocks
    ]
    return "\n\n".join(wrapped)


class Place(NamedTuple):
    """Where a text stands, between a marker and `END`, and what it is made of.

    Attributes
    ----------
    document : str
    begin : str
        The marker.
    write : function
        Gives the text for the results of each of the kinds.
    kinds : tuple of str
    """

    document: str
    begin: str
    write: Callable[..., str]
    kinds: tuple[str, ...]


PLACES = (
    Place("README.md", BEGIN, readme, (on_cpu.KIND, GPU)),
    Place("docs/performance.md", BEGIN, performance, (on_cpu.KIND, GPU)),
    Place("docs/performance.md", BEGIN_HOST, host_costs, (host_cost.KIND,)),
    Place("docs/performance.md", BEGIN_STEPS, training_steps, (training_step.KIND,)),
)
KINDS = tuple(dict.fromkeys(kind for place in PLACES for kind in place.kinds))


def placed(document: str, text: str, begin: str = BEGIN) -> str:
    """Put a text between the markers."""
    before, found, rest = document.partition(f"{begin}\n")
    _, ended, after = rest.partition(f"\n{END}")
    if not found or not ended:
        raise ValueError(f"the document has no place between {begin} and {END}")
    return f"{before}{found}{text}{ended}{after}"


def written(root: Path) -> dict[str, tuple[str, str]]:
    """Return each document as it is, and as the results have it."""
    found = documents(root / "bench" / "results")
    texts: dict[str, tuple[str, str]] = {}
    for place in PLACES:
        if place.document not in texts:
            text = (root / place.document).read_text(encoding="utf-8")
            texts[place.document] = (text, text)
        old, new = texts[place.document]
        text = place.write(*(found[kind] for kind in place.kinds))
        texts[place.document] = (old, placed(new, text, place.begin))
    return texts


def stale(root: Path = section.ROOT) -> list[str]:
    """Name the documents whose tables are not those of the results."""
    return [name for name, (old, new) in written(root).items() if old != new]


def update(root: Path = section.ROOT) -> None:
    """Write the tables anew."""
    for name, (_, new) in written(root).items():
        (root / name).write_text(new, encoding="utf-8")


# ---- a CPU's


def layers(document: Document, *, errors: bool = False) -> list[Sequence[str]]:
    """Return a row for each layer and dtype."""
    cases: dict[tuple[Any, ...], list[Document]] = {}
    for run in document["runs"]:
        for one in run:
            if one["what"] == OURS:
                case = (one["n"], one["k"], one["m"], one["dtype"])
                cases.setdefault(case, []).append(one)
    rows: list[Sequence[str]] = []
    for (n, k, m, dtype), ours in cases.items():
        time = statistics.median(one["seconds"] for one in ours)
        row = [layer((n, k, m)), dtype, seconds(time)]
        for peer in _peers(document):
            ratios = [one["ratios"][peer]["ratio"] for one in ours if peer in one["ratios"]]
            row.append(spread(ratios) if errors else middle(ratios))
        if errors:
            row.append(scientific(max(one["error"] for one in ours)))
        rows.append(row)
    return rows


def _size(one: Document) -> Size:
    return one["n"], one["k"], one["m"]


def layer(size: Size) -> str:
    """Name a layer: its extents, and its preset."""
    preset = name_of(size)
    extents = " × ".join(f"{one:,}".replace(",", "\u00a0") for one in size)
    return f"{extents} ({preset})" if preset else extents


def middle(ratios: Sequence[float]) -> str:
    """Write the median of some runs' ratios."""
    return f"{digits(statistics.median(ratios))} ×" if ratios else ""


def spread(ratios: Sequence[float]) -> str:
    """Write the median of some runs' ratios, with the least and the most."""
    if not ratios:
        return ""
    return f"{middle(ratios)} ({digits(min(ratios))}–{digits(max(ratios))})"


def grid_summary(document: Document) -> str:
    """Tell in a sentence how it is over the grid of shapes."""
    ratios = [one["ratios"]["NumPy"]["ratio"] for one in document["grid"] if one["what"] == OURS]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    slower = sum(one < 1 for one in ratios)
    return (
        f"Over {len(ratios)} shapes in float32 NumPy takes {digits(mean)} times as long in the "
        f"geometric mean, from {digits(min(ratios))} to {digits(max(ratios))}; less than gpugrad "
        f"at {slower} of them. By rows, and inputs × outputs:"
    )


def grid(document: Document) -> str:
    """Return how many times as long NumPy takes, rows against extents."""
    ratios = {
        ((one["k"], one["m"]), one["n"]): one["ratios"]["NumPy"]["ratio"]
        for one in document["grid"]
        if one["what"] == OURS
    }
    extents = list(dict.fromkeys(extent for extent, _ in ratios))
    counts = sorted({n for _, n in ratios})
    titles = ["rows", *(f"{k} × {m}" for k, m in extents)]
    rows = [[str(n), *(f"{digits(ratios[extent, n])} ×" for extent in extents)] for n in counts]
    return table(titles, rows, text=1)


def bounds_table(document: Document) -> str:
    """Return what a layer's parts take by themselves."""
    rows = [
        [
            layer(_size(one)),
            one["dtype"],
            *(seconds(one["seconds"][part]["median"]) for part in bounds.PARTS),
            f"{100 * bounds.least(one) / one['seconds'][bounds.INTO]['median']:.0f} %",
        ]
        for one in document["bounds"]
    ]
    return table(["layer", "dtype", *bounds.PARTS, "products"], rows)


def _titles(document: Document, *, errors: bool = False) -> list[str]:
    return ["layer", "dtype", "gpugrad", *_peers(document), *(["error"] if errors else [])]


def _peers(document: Document) -> list[str]:
    """Name the peers that were timed."""
    seen = {one["what"] for run in document["runs"] for one in run}
    return [name for name in PEERS if name in seen]


def _when(document: Document) -> str:
    source = document["source"]
    commit = (source["commit"] or f"sources {source['sources']}")[:12]
    changed = ", with changes" if source["dirty"] else ""
    return f"{document['date'][:10]}, commit {commit}{changed}"


# ---- a GPU's


def _gpu_heading(document: Document) -> str:
    where = document["environment"]
    versions = [
        f"{name} {version}"
        for name, version in where["versions"].items()
        if version and name in ("cupy", "cublas", "nvrtc", "torch")
    ]
    return (
        f"**On a GPU: {where['device']['name']}.** Measured by `python -m bench.on_gpu`, "
        f"{_when(document)}: driver {where['driver']}, {', '.join(versions)}. Device times by "
        "events, with operands that the cache does not hold; how many times as long others take "
        "in the same run."
    )


def gpu_table(document: Document, only: Iterable[str] = ()) -> str:
    """Return times of what was timed, or of some operations only."""
    sections = {one["name"]: one for one in document["sections"]}
    timed = sections.get("timings", {"data": {}})["data"].get("rows", [])
    chosen = [row for row in timed if not only or row["op"] in only]
    shown = [name for name in report.PEERS if any(name in row["peers"] for row in chosen)]
    rows = []
    for row in chosen:
        for name, times in row["ours"].items():
            if "device" not in times:
                continue
            ratios = [times["ratios"].get(peer) for peer in shown]
            what = row["dtype"] if name == "gpugrad" else f"{row['dtype']} {name}"
            rows.append(
                [
                    *([] if only else [f"`{row['op']}`"]),
                    layer(tuple(row["size"])),
                    what,
                    seconds(times["device"]["median"]),
                    seconds(times["host"]["median"]),
                    f"{100 * times['of_copy']:.0f} %" if "of_copy" in times else "",
                    *("" if one is None else f"{digits(one['median'])} ×" for one in ratios),
                ]
            )
    titles = [*([] if only else ["operation"]), "layer", "dtype", "gpugrad", "on the host"]
    return table([*titles, "of copy bandwidth", *shown], rows, text=2 if only else 3)


# ---- Markdown


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], text: int = 2) -> str:
    """Write a table whose first columns are text and whose others are numbers."""
    ruler = ["---"] * text + ["---:"] * (len(titles) - text)
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ruler, *rows))


if __name__ == "__main__":
    sys.exit(main())
