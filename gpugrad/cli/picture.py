"""The demo's picture: learning curves and misread digits."""

import io
import math
from collections.abc import Sequence
from typing import Any

from gpugrad.cli.digits import Digits, Epoch

INK, PAPER, MUTED = "#1f2933", "#ffffff", "#7b8794"
LOSS, ACCURACY, WRONG = "#c2410c", "#0f5fa8", "#c2410c"
MAX_SHOWN = 24  # misread digits


def draw(epochs: Sequence[Epoch], unseen: Digits, read: Any, title: str) -> bytes:
    """Draw learning curves and some misread digits.

    Parameters
    ----------
    epochs : sequence of Epoch
    unseen : Digits
    read : array
        The labels that the network predicts.
    title : str

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), dpi=150, facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.06, y=0.96, ha="left", color=INK, fontsize=14, fontweight="bold")
    halves = figure.add_gridspec(
        1, 2, width_ratios=(5, 6), left=0.06, right=0.97, top=0.8, bottom=0.12, wspace=0.16
    )
    _curves(figure, halves[0], epochs)
    _misread(figure, halves[1], unseen, read)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _curves(figure: Any, cell: Any, epochs: Sequence[Epoch]) -> None:
    top, bottom = cell.subgridspec(2, 1, hspace=0.35)
    passes = range(1, len(epochs) + 1)
    for where, values, name, colour in (
        (top, [one.loss for one in epochs], "training loss", LOSS),
        (bottom, [100 * one.accuracy for one in epochs], "accuracy on unseen digits, %", ACCURACY),
    ):
        axes = figure.add_subplot(where)
        marker = "o" if len(epochs) == 1 else None
        axes.plot(passes, values, color=colour, linewidth=2, marker=marker)
        axes.set_title(name, loc="left", color=colour, fontsize=11)
        axes.set_xlim(0, len(epochs))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(which="both", colors=MUTED, labelsize=9)
        axes.grid(axis="y", color=MUTED, alpha=0.2)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if where is top:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.tick_params(labelbottom=False)
        else:
            axes.set_ylim(min(90, 5 * (values[-1] // 5) - 5), 100)
            axes.set_xlabel("epoch", color=MUTED)
            axes.annotate(
                f"{values[-1]:.1f}",
                (passes[-1], values[-1]),
                xytext=(-2, -16),
                textcoords="offset points",
                ha="right",
                color=colour,
                fontweight="bold",
            )


def _misread(figure: Any, cell: Any, unseen: Digits, read: Any) -> None:
    wrong = [index for index in range(len(read)) if read[index] != unseen.labels[index]]
    shown = wrong[:MAX_SHOWN]
    heading = figure.add_subplot(cell)
    heading.set_axis_off()
    some = f"{len(shown)} of the " if len(shown) < len(wrong) else ""
    text = f"{some}{len(wrong)} misread of {len(read)}: true → read" if wrong else "none misread"
    heading.set_title(text, loc="left", color=INK, fontsize=11, pad=26)
    columns = max(1, math.ceil(math.sqrt(1.5 * len(shown))))
    rows = max(1, math.ceil(len(shown) / columns))
    grid = cell.subgridspec(rows, columns, hspace=0.45, wspace=0.15)
    side = round(unseen.x.shape[1] ** 0.5)
    for position, index in enumerate(shown):
        axes = figure.add_subplot(grid[position])
        axes.imshow(unseen.x[index].reshape(side, side), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(MUTED)
        label = f"{unseen.labels[index]} → {read[index]}"
        axes.set_title(label, color=WRONG, fontsize=10, pad=3)
