"""The picture of the README: other libraries' times relative to gpugrad's, from bench/results/.

    python -m bench.comparison [--update]

says whether docs/comparison.svg is that of the results, or draws it anew. Exit codes: 0 it is,
1 it is stale.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench import measured, on_cpu, section
from gpugrad.benchmark import environment
from gpugrad.benchmark.units import digits

PICTURE = section.ROOT / "docs" / "comparison.svg"
DTYPE = "float32"
COLORS = {"NumPy": "#4c78a8", "PyTorch": "#e45756", "JAX": "#54a24b"}
WIDTH, LABELS, BAR, GAP, TITLE = 720, 215, 13, 10, 46  # pixels
STYLE = """text { font: 12px sans-serif; fill: #57606a } .title { font-weight: bold }
.axis { stroke: #57606a } @media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } }"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.comparison", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--update", action="store_true", help="draw it anew")
    if parser.parse_args(argv).update:
        PICTURE.write_text(drawn(), encoding="utf-8")
    if stale():
        print("docs/comparison.svg is stale: python -m bench.comparison --update draws it anew")
    return int(stale())


def stale(picture: Path = PICTURE) -> bool:
    """Return whether the picture is not that of the results."""
    return picture.read_text(encoding="utf-8") != drawn()


def drawn() -> str:
    """Return the picture of the results that count."""
    return svg({title(one): ratios(one) for one in measured.documents()[on_cpu.KIND]})


def title(document: Mapping[str, Any]) -> str:
    """Name the processor of a result."""
    return f"dense_sigmoid_backward, {DTYPE}, {environment.device(document['environment'])}"


def ratios(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return, for each layer and peer, the median of the runs' ratios to gpugrad's time."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in document["runs"]:
        for one in run:
            if one["what"] == measured.OURS and one["dtype"] == DTYPE:
                layer = found.setdefault(measured.layer((one["n"], one["k"], one["m"])), {})
                for peer in COLORS:
                    if peer in one["ratios"]:
                        layer.setdefault(peer, []).append(one["ratios"][peer]["ratio"])
    return {
        layer: {peer: statistics.median(several) for peer, several in peers.items()}
        for layer, peers in found.items()
    }


def svg(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Draw a panel for each processor, with a bar for each layer and peer; gpugrad is 1."""
    every = [ratio for of in panels.values() for peers in of.values() for ratio in peers.values()]
    scale = (WIDTH - LABELS - 60) / max(every, default=1)
    marks, y = [], 0
    for name, x in zip(COLORS, range(LABELS, WIDTH, 90), strict=False):
        marks.append(f'<rect x="{x}" y="4" width="12" height="12" fill="{COLORS[name]}"/>')
        marks.append(f'<text x="{x + 17}" y="14">{name}</text>')
    for panel, layers in panels.items():
        marks.append(f'<text class="title" x="0" y="{y + TITLE - 8}">{escape(panel)}</text>')
        top = y = y + TITLE
        for layer, peers in layers.items():
            middle = y + BAR * len(peers) / 2 + 4
            marks.append(f'<text x="{LABELS - 8}" y="{middle:g}" text-anchor="end">{layer}</text>')
            for peer, ratio in peers.items():
                end = LABELS + scale * max(ratio, 1)  # labels keep clear of gpugrad's line
                marks.append(
                    f'<rect x="{LABELS}" y="{y}" width="{scale * ratio:.1f}" height="{BAR - 1}" '
                    f'fill="{COLORS[peer]}"/>'
                    f'<text x="{end + 4:.1f}" y="{y + BAR - 2}">{digits(ratio)} ×</text>'
                )
                y += BAR
            y += GAP
        line = f"{LABELS + scale:.1f}"  # gpugrad's own time
        marks.append(
            f'<line class="axis" x1="{line}" x2="{line}" y1="{top - 4}" y2="{y - GAP + 4}"/>'
        )
    marks.append(
        f'<text x="{LABELS}" y="{y + 12}">Time relative to gpugrad, which is the line</text>'
    )
    size = f'viewBox="0 0 {WIDTH} {y + 20}" width="{WIDTH}" height="{y + 20}"'
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    sys.exit(main())
