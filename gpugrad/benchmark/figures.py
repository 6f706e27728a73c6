"""Three figures of the results: roofline, time over rows, and time by stage.

Drawn in inks, of which a theme has the colours: a page's own theme has placeholders, so that the
page can exchange them for a dark or a light one.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpugrad.benchmark import environment, units
from gpugrad.benchmark.stages import STAGES, WHOLE

Document = Mapping[str, Any]
Theme = Mapping[str, str]

# Okabe and Ito's colours, which the colour-blind can tell apart; on dark paper some are lighter.
LIGHT: Theme = {
    "ink": "#1f2933",
    "muted": "#6b7785",
    "paper": "#ffffff",
    "blue": "#0072b2",
    "orange": "#d98e00",
    "green": "#009e73",
    "red": "#d55e00",
    "purple": "#b65f91",
    "sky": "#3d9fd6",
}
DARK: Theme = {
    "ink": "#e6e9ee",
    "muted": "#98a4b3",
    "paper": "#14181e",
    "blue": "#5aa9e6",
    "orange": "#e69f00",
    "green": "#2cc295",
    "red": "#f07f3c",
    "purple": "#d992bb",
    "sky": "#8ecbf0",
}
INKS = {  # of each candidate: ink and marker; what is not here is muted
    "gpugrad CPU": ("blue", "o"),
    "gpugrad GPU": ("green", "D"),
    "gpugrad GPU with copies": ("green", "s"),
    "NumPy": ("orange", "s"),
    "PyTorch": ("red", "^"),
    "torch eager": ("purple", "v"),
    "JAX": ("sky", "P"),
    "CuPy": ("orange", "X"),
    "PyTorch GPU": ("red", "^"),
    "torch eager GPU": ("purple", "v"),
    "JAX GPU": ("sky", "P"),
}
STAGE_INKS = dict(zip(STAGES, ("orange", "purple", "blue", "green"), strict=True))
MAX_LABELS, MAX_BARS = 14, 14
FINEST = 0.032  # distance of labels, as a part of the width
LETTER = 0.078  # inches of a letter of a label, on average
ENTRIES = 5  # of a legend in one row


@dataclass(frozen=True)
class Size:
    """Of a figure, in inches."""

    width: float
    height: float


SHEET = Size(14.4, 10.6)
SIZES = {"roofline": Size(7.2, 4.9), "rows": Size(7.2, 4.9), "stages": Size(9.4, 4.2)}


def png(document: Document) -> bytes:
    """Draw all figures on one sheet."""
    figure = _figure(SHEET, LIGHT)
    facts = document["environment"]
    what = "gpugrad bench" + (", stopped early" if document["stopped"] else "")
    title = f"{what}: {environment.device(facts)}"
    figure.text(0.05, 0.962, title, color=LIGHT["ink"], fontsize=15, fontweight="bold")
    told = f"{document['date'][:10]}, {environment.software(facts)}"
    figure.text(0.05, 0.935, told, color=LIGHT["muted"], fontsize=9.5)
    warning = " ".join(document["load"]["warnings"])
    figure.text(0.05, 0.912, warning, color=LIGHT["red"], fontsize=9.5)
    upper, lower = (0.505, 0.35), (0.07, 0.335)  # bottom and height
    left = _room_for_labels(document, SHEET)
    places = {
        "roofline": (0.06, upper[0], 0.415, upper[1]),
        "rows": (0.56, upper[0], 0.415, upper[1]),
        "stages": (left, lower[0], 0.975 - left, lower[1]),
    }
    for name, place in places.items():
        DRAW[name](figure.add_axes(place), document, LIGHT)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def svg(name: str, document: Document, theme: Theme) -> str:
    """Draw one figure, "roofline", "rows" or "stages", without a background."""
    import matplotlib as mpl

    figure = _figure(SIZES[name], theme)
    left = _room_for_labels(document, SIZES[name]) if name == "stages" else 0.1
    DRAW[name](figure.add_axes((left, 0.13, 0.97 - left, 0.73)), document, theme)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _figure(size: Size, theme: Theme) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size.width, size.height), dpi=130, facecolor=theme["paper"])
    FigureCanvasAgg(figure)
    return figure


def _room_for_labels(document: Document, size: Size) -> float:
    """Return the part of a figure's width that the labels of stages take, to the left of them."""
    stages = document["stages"][:MAX_BARS]
    longest = max((len(_stage_label(one, stages)) for one in stages), default=0)
    return max(0.06, (0.25 + LETTER * longest) / size.width)


# ---- roofline


def _roofline(axes: Any, document: Document, theme: Theme) -> None:
    points = [one for one in document["results"] if one["flops"] and one["role"] != "copy"]
    names = {one["what"] for one in points}
    legend_rows = max(1, math.ceil(len(names) / ENTRIES))
    _frame(axes, "Roofline", theme, pad=9 if legend_rows == 1 else 9 + 13 * legend_rows)
    if not points:
        _empty(axes, "nothing measured here multiplies matrices", theme)
        return
    cases: dict[str, float] = {}
    several = _several(points, ("op", "dtype", "precision"))
    seen = set()
    for one in points:
        label = _label(one, several)
        cases[label] = one["flops"] / one["bytes"]
        ink, marker = INKS.get(one["what"], ("muted", "o"))
        axes.plot(
            cases[label],
            one["gflop_per_second"],
            marker,
            color=theme[ink],
            markersize=7.5 if one["role"] == "gpugrad" else 6,
            alpha=0.95,
            markeredgecolor=theme["paper"],
            markeredgewidth=0.6,
            label=one["what"] if one["what"] not in seen else None,
            zorder=4 if one["role"] == "gpugrad" else 3,
        )
        seen.add(one["what"])
    low, high = min(cases.values()) / 2.2, max(cases.values()) * 2.2
    top = _roofs(axes, document["rooflines"], low, high, theme)
    rates = [one["gflop_per_second"] for one in points]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(rates) / 6, 2.2 * max(*rates, top))  # below: labels; above: those of roofs
    axes.set_xlabel("floating-point operations a byte moved at least", color=theme["muted"])
    axes.set_ylabel("GFLOP/s", color=theme["muted"])
    _ticks(axes.xaxis, low, high)
    _ticks(axes.yaxis, *axes.get_ylim())
    _name_cases(axes, cases, theme)
    _legend(axes, theme, columns=math.ceil(len(names) / legend_rows))


def _roofs(axes: Any, roofs: Sequence[Document], low: float, high: float, theme: Theme) -> float:
    """Draw what the machine can do at best; the highest rate, or 0 without a roof."""
    top = 0.0
    for roof in roofs:
        peak, slope = 1e-9 * roof["flops_per_second"], 1e-9 * roof["bytes_per_second"]
        ridge = peak / slope
        xs = sorted({low, min(max(ridge, low), high), high})
        style = "-" if roof["device"] == "cpu" else (0, (6, 2))
        axes.plot(
            xs, [min(peak, slope * x) for x in xs], linestyle=style, color=theme["muted"], lw=1.4
        )
        told = (
            f"{roof['device'].upper()} {roof['dtype']}: {units.digits(peak)} GFLOP/s "
            f"({roof['by']}), {units.digits(slope)} GB/s copied"
        )
        axes.annotate(
            told,
            (high, min(peak, slope * high)),
            xytext=(-4, 5),
            textcoords="offset points",
            ha="right",
            color=theme["muted"],
            fontsize=8.5,
        )
        top = max(top, min(peak, slope * high))
    return top


def _name_cases(axes: Any, cases: Mapping[str, float], theme: Theme) -> None:
    """Write names upwards from the bottom, apart from each other, with lines to their points."""
    if len(cases) > MAX_LABELS:
        return
    low, high = (math.log(limit) for limit in axes.get_xlim())
    ordered = sorted(cases.items(), key=lambda one: one[1])
    wanted = [(math.log(intensity) - low) / (high - low) for _, intensity in ordered]
    for (name, _), true, place in zip(ordered, wanted, apart(wanted, FINEST), strict=True):
        axes.plot(
            (place, true, true),
            (0.02, 0.05, 1),
            transform=axes.transAxes,
            color=theme["muted"],
            lw=0.6,
            alpha=0.45,
            zorder=1,
        )
        axes.text(
            place,
            0.025,
            f" {name}",
            transform=axes.transAxes,
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=theme["muted"],
        )


def apart(places: Sequence[float], least: float) -> list[float]:
    """Move ascending places as little as one pass each way takes to have them `least` apart."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + least)
    beyond = moved[-1] - 0.985 if moved else 0.0
    if beyond > 0:
        moved[-1] -= beyond
        for index in range(len(moved) - 2, -1, -1):
            moved[index] = min(moved[index], moved[index + 1] - least)
    return moved


# ---- time over rows


def _rows(axes: Any, document: Document, theme: Theme) -> None:
    rows = document["rows"]
    if not rows:
        _frame(axes, "Time over rows", theme)
        _empty(axes, "not measured", theme)
        return
    layer = f"{rows['k']} inputs, {rows['m']} outputs, {rows['dtype']}"
    _frame(axes, f"{rows['op']} over rows: {layer}", theme)
    lines: dict[str, list[Document]] = {}
    for point in rows["points"]:
        lines.setdefault(point["name"], []).append(point)
    for name, points in lines.items():
        ink, marker = INKS.get(name, ("muted", ""))
        counts = [one["n"] for one in points]
        predicted = points[0]["quartiles"] is None
        axes.plot(
            counts,
            [one["seconds"] for one in points],
            color=theme[ink],
            marker=marker,
            markersize=5,
            lw=1.8,
            linestyle=(0, (4, 2)) if predicted else "-",
            label=name,
        )
        if not predicted:
            lows, highs = zip(*(one["quartiles"] for one in points), strict=True)
            axes.fill_between(counts, lows, highs, color=theme[ink], alpha=0.18, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    counts = sorted({one["n"] for one in rows["points"]})
    shown = counts[:: 2 if len(counts) > 7 else 1]
    axes.set_xticks(shown, [_count(one) for one in shown])
    axes.minorticks_off()
    axes.set_xlabel("rows of the batch", color=theme["muted"])
    low, high = axes.get_ylim()
    axes.set_ylim(low / 3, high)  # room for the text in the corner
    decades = [10.0**power for power in range(-7, 4) if low <= 10.0**power <= high]
    axes.set_yticks(decades, [_decade(one) for one in decades])
    _legend(axes, theme, columns=1, within="upper left")
    crossing = crossover(lines)
    if crossing is not None:
        axes.axvline(crossing, color=theme["muted"], lw=1, linestyle=":")
        told = f"with copies, the GPU is faster from {_count(crossing)} rows"
        _corner(axes, told, theme)
    elif document["environment"]["gpu"] is None:
        why = document["environment"]["no_gpu_because"] or "it was not asked for"
        _corner(axes, f"No GPU: {why}", theme)


def crossover(lines: Mapping[str, Sequence[Document]]) -> int | None:
    """Return the number of rows from which on the GPU is faster, copies included."""
    on_cpu = {one["n"]: one["seconds"] for one in lines.get("gpugrad CPU", ())}
    on_gpu = {one["n"]: one["seconds"] for one in lines.get("gpugrad GPU with copies", ())}
    found = None
    for n in sorted(on_cpu.keys() & on_gpu.keys(), reverse=True):
        if on_gpu[n] >= on_cpu[n]:
            break
        found = n
    return found


# ---- stages


def _stages(axes: Any, document: Document, theme: Theme) -> None:
    _frame(axes, "Time by stage, each called alone, beside the whole call", theme)
    stages = document["stages"][:MAX_BARS]
    if not stages:
        _empty(axes, "dense_sigmoid_backward was not measured", theme)
        return
    bars = list(reversed(stages))
    longest = max(sum(_shares(bar).values()) for bar in bars)
    left = [0.0] * len(bars)
    for name in STAGES:
        widths = [_shares(bar)[name] for bar in bars]
        axes.barh(
            range(len(bars)),
            widths,
            left=left,
            height=0.62,
            color=theme[STAGE_INKS[name]],
            edgecolor=theme["paper"],
            lw=0.8,
            label=name,
        )
        for index, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 0.045 * longest:
                axes.text(
                    start + width / 2,
                    index,
                    f"{width:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color=theme["paper"],
                    fontweight="bold",
                )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.axvline(100, color=theme["ink"], lw=1.4)
    for index, bar in enumerate(bars):
        told = f"whole call {units.seconds(bar['seconds'][WHOLE])}"
        place = max(left[index], 100)
        axes.text(
            place + 0.012 * longest, index, told, va="center", fontsize=8.5, color=theme["muted"]
        )
    axes.set_yticks(range(len(bars)), [_stage_label(bar, stages) for bar in bars])
    axes.tick_params(axis="y", length=0, labelcolor=theme["ink"])
    axes.set_xlim(0, 1.2 * max(longest, 100))
    axes.set_xlabel("% of the whole call, which is the line at 100", color=theme["muted"])
    axes.grid(axis="y", visible=False)
    _legend(axes, theme, columns=len(STAGES))


def _shares(bar: Document) -> dict[str, float]:
    """Return the stages' times as percentages of the whole call's."""
    whole = bar["seconds"][WHOLE]
    return {name: 100 * bar["seconds"][name] / whole for name in STAGES}


DRAW = {"roofline": _roofline, "rows": _rows, "stages": _stages}


# ---- what figures share


def _several(results: Sequence[Document], names: Sequence[str]) -> list[str]:
    """Return which properties have several values, so that labels must have them."""
    return [name for name in names if len({one[name] for one in results}) > 1]


def _label(result: Document, several: Sequence[str]) -> str:
    size = result["preset"] or f"{result['n']}×{result['k']}×{result['m']}"
    return " ".join([size, *(str(result[name]) for name in several)])


def _stage_label(stage: Document, stages: Sequence[Document]) -> str:
    return _label(stage, _several(stages, ("dtype", "precision", "device")))


def _frame(axes: Any, title: str, theme: Theme, pad: float = 9) -> None:
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", color=theme["ink"], fontsize=11, fontweight="bold", pad=pad)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme["muted"])
    axes.tick_params(which="both", color=theme["muted"], labelcolor=theme["muted"], labelsize=9)
    axes.grid(color=theme["muted"], alpha=0.16)
    axes.set_axisbelow(True)


def _empty(axes: Any, text: str, theme: Theme) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    place = axes.transAxes
    axes.text(0.5, 0.5, text, transform=place, ha="center", color=theme["muted"], fontsize=10)


def _corner(axes: Any, text: str, theme: Theme) -> None:
    place = axes.transAxes
    axes.text(
        0.985,
        0.03,
        text,
        transform=place,
        ha="right",
        fontsize=8.5,
        color=theme["muted"],
        wrap=True,
    )


def _legend(axes: Any, theme: Theme, *, columns: int, within: str = "") -> None:
    """Put the legend above the axes to the right, or into a corner within them."""
    above: dict[str, Any] = {"bbox_to_anchor": (1.01, 0.995), "loc": "lower right"}
    axes.legend(
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        labelcolor=theme["ink"],
        columnspacing=1.1,
        handletextpad=0.4,
        **({"loc": within} if within else above),
    )


def _ticks(axis: Any, low: float, high: float) -> None:
    """Put plain numbers at 1, 2 and 5 times powers of ten; fewer where there are many decades."""
    digits = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    ticks = [one for one in ticks if low <= one <= high]
    axis.set_ticks(ticks, labels=[f"{one:g}" for one in ticks])
    axis.set_minor_formatter("")


def _count(n: int) -> str:
    return f"{n:,}".replace(",", "\u202f")


def _decade(seconds: float) -> str:
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 0.9e-3 else ("µs", 1e6)
    return f"{seconds * scale:g} {unit}"
