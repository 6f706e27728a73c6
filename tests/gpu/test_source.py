"""Kernel sources: found, and expanded with every include in place."""

import re
from pathlib import Path

import pytest

from gpugrad.gpu import source


@pytest.mark.parametrize("stem", source.stems())
def test_expansion_keeps_every_line_and_its_number(stem: str) -> None:
    """Each line of the expansion is the line of the file that `#line` says it is."""
    where, number = "", 0
    for line in source.expand(stem).splitlines():
        directive = re.fullmatch(r'#line (\d+) "([\w.]+)"', line)
        if directive:
            number, where = int(directive[1]), directive[2]
            continue
        original = source.directory().joinpath(where).read_text(encoding="utf-8").splitlines()
        assert line in (original[number - 1], "")
        number += 1


@pytest.mark.parametrize("stem", source.stems())
def test_expansion_is_self_contained(stem: str) -> None:
    text = source.expand(stem)
    assert '#include "' not in text
    assert "#pragma once" not in text
    for name in re.findall(r'#line 1 "([\w.]+)"', text):
        assert text.count(f'#line 1 "{name}"') == 1, f"{name} is included twice"


def test_an_edit_of_an_included_header_changes_the_expansion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.cu").write_text('#include "b.cuh"\nint a;\n')
    (tmp_path / "b.cuh").write_text("#pragma once\nint b;\n")
    monkeypatch.setattr(source, "directory", lambda: tmp_path)
    before = source.expand("a")
    (tmp_path / "b.cuh").write_text("#pragma once\nlong b;\n")
    assert source.expand("a") != before
