"""Measure the errors of products against float64, by the model of the kernels' arithmetic."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.accuracy.table import (
    BROKEN,
    PATH,
    TABLES,
    Row,
    render,
    render_families,
    replaced,
    whole_line,
)


def main() -> int:
    """Compute the tables; print them, or put them into docs/numerics.md.

    The exit code is 1 if a class breaks its promise; these rows go to standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write them into docs/numerics.md")
    parser.add_argument("--longest", type=int, default=10**6, help="no longer sums (10⁶)")
    arguments = parser.parse_args()
    if arguments.update and arguments.longest < 10**6:
        parser.error("--update writes whole tables")
    rows = [
        (index, row)
        for index, table in enumerate(TABLES)
        for row in table.rows
        if row.contraction <= arguments.longest
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(_line, rows))
    blocks = {"data": render_families()}
    for index, table in enumerate(TABLES):
        own = [line for (of, _), line in zip(rows, lines, strict=True) if of == index]
        blocks[table.name] = render(table, own)
    broken = [line for line in lines if BROKEN in line]
    print("\n".join(broken), file=sys.stderr)
    if not arguments.update:
        print("\n\n".join(blocks.values()))
        return bool(broken)
    text = PATH.read_text(encoding="utf-8")
    for name, block in blocks.items():
        text = replaced(text, name, block)
    PATH.write_text(text, encoding="utf-8")
    return bool(broken)


def _line(job: tuple[int, Row]) -> str:
    index, row = job
    return whole_line(TABLES[index], row)


if __name__ == "__main__":
    sys.exit(main())
