"""The probe that showed each mutant when killed_by.tsv was written: it is tried first.

That saves most of the time. What the table says proves nothing: where its probe notices nothing,
or is no more, all others follow in their order. `python -m tests.mutants --update` writes it.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.mutants.mutant import Mutant

TABLE = Path(__file__).with_suffix(".tsv")


@functools.cache
def table() -> dict[str, str]:
    """Read the table: the words of a probe, by the words of a mutant."""
    lines = TABLE.read_text("utf-8").splitlines() if TABLE.exists() else []
    return dict(line.split("\t") for line in lines)


def update(probes: Mapping[Mutant, str], mutants: Iterable[Mutant]) -> None:
    """Write the table for all mutants, with what showed some of them now."""
    known = table() | {str(mutant): probe for mutant, probe in probes.items()}
    rows = [f"{one}\t{known[one]}\n" for one in sorted(map(str, mutants)) if known.get(one)]
    TABLE.write_text("".join(rows), "utf-8")
    table.cache_clear()
