"""Every bug that is planted in a kernel is noticed; the kernels as they are pass the same calls."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpugrad.gpu import source
from tests.conftest import needs_compiler
from tests.mutants import AT_LEAST, MUTANTS, Mutant, killed_by
from tests.mutants.examination import ALL_PROBES, Outcome, examine_all, first_failure
from tests.mutants.probes import PROBES
from tests.mutants.table import lines
from tests.support.operations import OPERATIONS

NOT_EMULATED = {"ptx.cuh"}  # functions of the emulator stand in for all of it
FILES = sorted({path.name for path in source.directory().glob("*.cu*")} - NOT_EMULATED)
OLD, SIGMOID = "packed, false, value", ("sigmoid",)
HARMLESS = Mutant("sigmoid.cu", "harmless", OLD, "packed, 0, value", SIGMOID)
BROKEN = Mutant("sigmoid.cu", "broken", OLD, "packed, fals, value", SIGMOID)
AMBIGUOUS = Mutant("sigmoid.cu", "ambiguous", "column", "row", SIGMOID)

Outcomes = Mapping[Mutant, Outcome]


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    needs_compiler()


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """Examine the mutants that were selected, all at once; print the table in the end."""
    given = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [one.params["mutant"] for one in given if one and "mutant" in one.params]
    found = examine_all([*chosen, HARMLESS, BROKEN, AMBIGUOUS])
    table = _Table({mutant: found[mutant] for mutant in chosen})
    request.config.pluginmanager.register(table)
    return found


class _Table:
    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.outcomes:
            terminalreporter.section("planted bugs and what caught them")
            for line in lines(self.outcomes):
                terminalreporter.write_line(line)


FIRST_TIER = (  # files whose first mutant is not slow
    *("sigmoid.cu", "bias_backward.cu", "column_sum.cuh", "matmul_backward_ffma.cu"),
    *("gemm_mma.cuh", "gemm_wgmma.cuh", "split_planes.cu"),
)
FIRST = {one.file: one for one in reversed(MUTANTS) if one.file in FIRST_TIER}.values()


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(one, marks=[pytest.mark.slow] * (one not in FIRST)) for one in MUTANTS],
    ids=str,
)
def test_mutant_is_caught(mutant: Mutant, outcomes: Outcomes) -> None:
    outcome = outcomes[mutant]
    assert not outcome.problem, outcome.problem
    assert outcome.caught, f"survives: {mutant.old!r} became {mutant.new!r}"


@pytest.mark.slow
@pytest.mark.parametrize("op", ALL_PROBES)
def test_kernels_without_a_bug_pass(op: str) -> None:
    assert first_failure([op]) == Outcome("")


@pytest.mark.parametrize("file", FILES)
def test_every_kernel_file_has_its_mutants(file: str) -> None:
    names = [mutant.name for mutant in MUTANTS if mutant.file == file]
    assert len(names) >= AT_LEAST
    assert len(names) == len(set(names))


def test_every_function_has_its_probes() -> None:
    assert PROBES.keys() == OPERATIONS.keys()
    assert {mutant.file for mutant in MUTANTS} == set(FILES)


def test_the_table_of_probes_is_of_mutants_and_probes_that_there_are() -> None:
    probes = {
        str(one): {str(probe) for op in one.ops for probe in ALL_PROBES[op]} for one in MUTANTS
    }
    stale = [one for one, probe in killed_by.table().items() if probe not in probes.get(one, ())]
    assert not stale


def test_the_likely_probe_is_tried_first_and_all_others_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    class Fake(str):
        def run(self) -> None:
            tried.append(self)
            assert self != "c", "noticed"

    monkeypatch.setitem(ALL_PROBES, "op", [Fake(words) for words in "abc"])
    for likely, order in ((None, "abc"), ("b", "bac"), ("no more", "abc"), ("c", "c")):
        tried.clear()
        caught, _, probe = first_failure(["op"], likely=likely)
        assert ("".join(tried), probe) == (order, "c")
        assert caught == "bounds: noticed (c, ascending)"


def test_the_table_of_probes_is_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killed_by, "TABLE", tmp_path / "table.tsv")
    monkeypatch.setattr(killed_by, "table", functools.cache(killed_by.table.__wrapped__))
    assert killed_by.table() == {}
    killed_by.update({HARMLESS: "a", BROKEN: "b", AMBIGUOUS: ""}, (HARMLESS, BROKEN, AMBIGUOUS))
    assert killed_by.table() == {str(HARMLESS): "a", str(BROKEN): "b"}
    killed_by.update({AMBIGUOUS: "c"}, (HARMLESS, AMBIGUOUS))
    assert killed_by.table() == {str(HARMLESS): "a", str(AMBIGUOUS): "c"}


def test_what_changes_nothing_survives(outcomes: Outcomes) -> None:
    assert outcomes[HARMLESS] == Outcome("")


def test_what_does_not_compile_is_not_caught(outcomes: Outcomes) -> None:
    caught, problem, _ = outcomes[BROKEN]
    assert not caught
    assert "compilation failed" in problem
    assert "fals" in problem


def test_a_replacement_that_fits_twice_is_an_error(outcomes: Outcomes) -> None:
    assert outcomes[AMBIGUOUS].problem.startswith("what it replaces is in sigmoid.cu ")
