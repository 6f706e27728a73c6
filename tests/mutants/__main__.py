"""`python -m tests.mutants`: the table, and exit status 1 if a mutant survives."""

import argparse
import sys

from tests.mutants import MUTANTS, killed_by
from tests.mutants.examination import examine_all, first_failure
from tests.mutants.table import lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants with one of them in file or name")
    parser.add_argument("--update", action="store_true", help=f"write {killed_by.TABLE.name} anew")
    given = parser.parse_args()
    words = given.words
    chosen = [one for one in MUTANTS if not words or any(word in str(one) for word in words)]
    if not chosen:
        parser.error("there is no such mutant")
    failure = first_failure({op: None for mutant in chosen for op in mutant.ops})
    if failure.caught:
        print(f"the kernels themselves are wrong: {failure.caught}")
        return 1
    outcomes = examine_all(chosen)
    print("\n".join(lines(outcomes)))
    if given.update:
        killed_by.update({one: outcome.probe for one, outcome in outcomes.items()}, MUTANTS)
    return 0 if all(outcome.caught for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
