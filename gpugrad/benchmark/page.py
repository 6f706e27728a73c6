"""The results as one self-contained page, for dark and light screens."""

import html
import re
from collections.abc import Mapping
from typing import Any

import gpugrad
from gpugrad.benchmark import environment, figures, tables

ALTERNATIVES = {
    "roofline": "Rates of all that was measured, under the rates that the machine reaches at best",
    "rows": "Time of a call over the rows of the batch",
    "stages": "Time of the stages dz, db, dx and dw as percentages of the whole call",
}
# What a figure is drawn in, to be exchanged for the page's own colours.
PLACEHOLDERS = {name: f"#0a0b{index:02x}" for index, name in enumerate(figures.LIGHT)}

STYLE = """
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: var(--paper);
       color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p { color: var(--muted); margin: .3rem 0; }
p.warning { color: var(--red); font-weight: 600; }
svg { width: 100%%; height: auto; display: block; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .9rem .15rem 0; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
tr.own td { font-weight: 600; } tr.own td:first-child { color: var(--blue); }
"""


def render(document: Mapping[str, Any]) -> str:
    """Write the page."""
    facts = document["environment"]
    title = f"gpugrad bench: {environment.device(facts)}"
    style = STYLE % {"light": _variables(figures.LIGHT), "dark": _variables(figures.DARK)}
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{style}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>gpugrad {gpugrad.__version__}, {html.escape(document['date'])}</p>",
        *(f'<p class="warning">{html.escape(one)}</p>' for one in document["load"]["warnings"]),
        *(_figure(name, document) for name in figures.DRAW),
        *_tables(document),
        *(f"<p>{html.escape(line)}</p>" for line in tables.notes(document)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _variables(theme: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in theme.items())


def _figure(name: str, document: Mapping[str, Any]) -> str:
    """Draw a figure in the page's colours, with identifiers that no other figure has."""
    drawn = figures.svg(name, document, PLACEHOLDERS)
    drawn = drawn[drawn.index("<svg") :]
    for ink, placeholder in PLACEHOLDERS.items():
        drawn = drawn.replace(placeholder, f"var(--{ink})")
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    label = f'<svg role="img" aria-label="{ALTERNATIVES[name]}" '
    return drawn.replace("<svg ", label, 1)


def _tables(document: Mapping[str, Any]) -> list[str]:
    columns = [column.title for column in tables.titles(document)]
    head = "".join(f"<th>{html.escape(one)}</th>" for one in columns)
    own = set(tables.own(document))
    parts = []
    for title, rows in tables.sections(document):
        parts.append(f'<h2>{html.escape(title)}</h2><div class="wide"><table><tr>{head}</tr>')
        for row in rows:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            parts.append(f'<tr class="own">{cells}</tr>' if row[0] in own else f"<tr>{cells}</tr>")
        parts.append("</table></div>")
    return parts
