"""What caught each mutant, for people."""

import re
from collections.abc import Mapping
from itertools import groupby

from tests.mutants.examination import Outcome
from tests.mutants.mutant import Mutant

WIDTH = 120  # of what caught it
LEFT_OUT = re.compile(  # of the checker's messages, to make room for the place
    r" \(shape \([^)]*\), \w+\)|, byte \d+( of \d+)?|, element \[[^]]*\]| \[block .*?\]"
    r"| by thread \([^)]*\)( of block \([^)]*\))?|(?<=^checker: )\w+: |shared array |, ascending"
)


def verdict(outcome: Outcome) -> str:
    """Return what caught a mutant in a line, or that nothing did."""
    if outcome.problem:
        return f"NOT EXAMINED: {outcome.problem}"
    text = LEFT_OUT.sub("", outcome.caught)
    return (text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…") or "SURVIVED"


def lines(outcomes: Mapping[Mutant, Outcome]) -> list[str]:
    """Return the table: kernel, mutant, what caught it."""
    width = max((len(mutant.name) for mutant in outcomes), default=0)
    rows = []
    for file, mutants in groupby(sorted(outcomes, key=lambda one: one.file), lambda one: one.file):
        rows.append(file)
        rows += [f"  {one.name:{width}}  {verdict(outcomes[one])}" for one in mutants]
    caught = sum(bool(one.caught) for one in outcomes.values())
    return [*rows, f"{caught} of {len(outcomes)} mutants were caught"]
