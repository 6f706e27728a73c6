"""The short tables that a run ends with, from its JSON document."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpugrad.benchmark import units

PEERS = ("CuPy", "eager", "autograd", "compiled", "TF32", "torch graph")
COMPARED = ("gpugrad", "gpugrad from z", "CuPy", "PyTorch")
SHOWN = 12  # failures

Document = Mapping[str, Any]


def render(document: Document) -> str:
    """Write a run's tables, the sections' results first."""
    sections = {one["name"]: one for one in document["sections"]}
    blocks = [head(document), results(document["sections"])]
    if "accuracy" in sections:
        data = sections["accuracy"]["data"]
        blocks += [products(data.get("products", [])), accuracy(data.get("findings", []))]
    if "timings" in sections:
        blocks.append(timings(sections["timings"]["data"]))
    if "host" in sections:
        blocks.append(host(sections["host"]["data"]))
    blocks += [not_run(document), failures(document["sections"])]
    return "\n\n".join(block for block in blocks if block)


def head(document: Document) -> str:
    """Return two lines on what was measured, and where."""
    source, where = document["source"], document["environment"]
    versions = where["versions"]
    commit = (source["commit"] or "no commit")[:12] + (" (changed)" if source["dirty"] else "")
    software = ["CUDA {driver}, NVRTC {nvrtc}".format(**where["cuda"])]
    software += [f"{name} {versions[name]}" for name in ("cupy", "torch") if versions.get(name)]
    return (
        f"gpugrad {source['version']}, {commit}, sources {source['sources']}, {document['date']}\n"
        f"{where['device']['name']}, driver {where['driver']}, {', '.join(software)}"
    )


def results(sections: Iterable[Document]) -> str:
    """Return what came of each section."""
    rows = [("section", "result", "seconds", "")]
    rows += [(s["name"], s["status"], f"{s['seconds']:.1f}", clip(s["summary"])) for s in sections]
    return table(rows, right=(2,))


def products(findings: Sequence[Document]) -> str:
    """Return errors of products by precision class, beside cuBLAS's."""
    if not findings:
        return ""
    by_component, in_norm = ("ieee", "highest", "cuBLAS"), ("high", "medium", "TF32")
    rows = [("products", "terms", *by_component, *in_norm)]
    for one in findings:
        found = [one["errors"].get(name) for name in (*by_component, *in_norm)]
        cells = ["" if e is None else f"{short(e['largest'])} {short(e['rms'])}" for e in found[:3]]
        cells += ["" if e is None else power_of_two(e["norm"]) for e in found[3:]]
        rows.append((one["data"].replace("±", "+-"), str(one["contraction"]), *cells))
    title = (
        "errors of float32 products: largest and root mean square in units of u * sum|a||b|; "
        "from high on, largest in norm"
    )
    return f"{title}\n{table(rows, right=range(1, 8))}"


def accuracy(findings: Sequence[Document]) -> str:
    """Return errors beside their bounds and beside others', largest and root mean square."""
    if not findings:
        return ""
    shown = [name for name in COMPARED if any(name in one["errors"] for one in findings)]
    rows = [("operation", "dtype", "err/bound", *shown)]
    for one in findings:
        errors = [one["errors"].get(name) for name in shown]
        cells = ["" if e is None else f"{short(e['largest'])} {short(e['rms'])}" for e in errors]
        rows.append((one["op"], one["dtype"], short(one["ratio"]), *cells))
    title = "errors in units of u * sum|terms|: largest, root mean square"
    return f"{title}\n{table(rows, right=range(2, 3 + len(shown)))}"


def timings(data: Document) -> str:
    """Return times, and how many times longer others took in the same run."""
    if not data.get("rows"):
        return ""
    shown = [name for name in PEERS if any(name in one["peers"] for one in data["rows"])]
    rows = [("", "time", "+-", "host", "of copy", "TFLOP/s", *shown)]
    last = ""
    for row in data["rows"]:
        title = f"{row['op']} {'x'.join(map(str, row['size']))}"
        if title != last:
            rows.append((title, *[""] * (len(rows[0]) - 1)))
            last = title
        for name, times in row["ours"].items():
            if "device" in times:
                rows.append(_timed(row["dtype"], name, times, shown))
    copy = data["copy_bandwidth"]["median"]
    told = f"times; others' times as multiples of ours; copy bandwidth {copy / 1e12:.2f} TB/s"
    return f"{told}\n{table(rows, right=range(1, 6 + len(shown)))}"


def _timed(dtype: str, name: str, times: Document, shown: Sequence[str]) -> tuple[str, ...]:
    device = times["device"]
    spread = (device["high"] - device["low"]) / 2 / device["median"] if device["median"] else 0
    rate = times.get("flops_per_second", 0)
    ratios = [times["ratios"].get(peer) for peer in shown]
    return (
        f"  {dtype} {'' if name == 'gpugrad' else name}",
        seconds(device["median"]),
        f"{100 * spread:.1f}%",
        seconds(times["host"]["median"]),
        f"{100 * times.get('of_copy', math.nan):.0f}%",
        f"{rate / 1e12:.1f}" if rate else "",
        *("" if one is None else f"{one['median']:.2f}" for one in ratios),
    )


def host(data: Document) -> str:
    """Return what calls cost the host, planned anew and repeated."""
    if not data.get("rows"):
        return ""
    kinds = list(data["rows"][0]["seconds"])
    rows = [("operation", "layer", *kinds)]
    for one in data["rows"]:
        size = "x".join(str(one[extent]) for extent in "nkm")
        rows.append((one["op"], size, *(seconds(one["seconds"][kind]["median"]) for kind in kinds)))
    right = range(2, 2 + len(kinds))
    return f"time on the host until a call has launched, {data['gpu']}\n{table(rows, right)}"


def not_run(document: Document) -> str:
    """List what did not run: for lack of time or of a tool, or because it was not asked for."""
    sections = [one for one in document["sections"] if one["not_run"]]
    told = [f"{one['name']}: {clip(one['not_run'], 200)}" for one in sections]
    told += [f"{name}: skipped" for name in document["skipped"]]
    return "\n".join(["not run:", *told]) if told else ""


def failures(sections: Iterable[Document]) -> str:
    """List what failed."""
    told = [f"{one['name']}: {clip(text, 200)}" for one in sections for text in one["failures"]]
    more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return "\n".join(["failed:", *told[:SHOWN], *more]) if told else ""


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Align columns; a row with a single cell filled is a title and widens nothing."""
    to_the_right = set(right)
    counted = [row for row in rows if sum(cell != "" for cell in row) > 1]
    widths = [max(len(row[i]) for row in counted) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in to_the_right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() if row in counted else row[0])
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Write a time with three digits and a unit, in ASCII."""
    return units.seconds(value).replace("µ", "u")


def short(value: float | str) -> str:
    """Write a number with three digits."""
    number = float(value)  # JSON documents hold "inf" and "nan" as strings
    return units.digits(number) if 0.01 <= abs(number) < 1000 else f"{number:.2g}"


def power_of_two(value: float | str) -> str:
    """Write an error as a power of two."""
    number = float(value)
    return f"2^{math.log2(number):.1f}" if 0 < number < math.inf else short(number)


def clip(text: str, most: int = 110) -> str:
    """Write a text on one line, cut at a length."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
