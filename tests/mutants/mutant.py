"""A planted bug."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class NotAMutantError(Exception):
    """A replacement that does not fit the file, or a kernel that does not compile with it."""


@dataclass(frozen=True)
class Mutant:
    """In a kernel file, `old`, which is there once, becomes `new`.

    Attributes
    ----------
    file, name : str
    old, new : str
    ops : tuple of str
        The functions whose probes must show it, in the order in which they are tried: keys of
        ALL_PROBES in tests/mutants/examination.py.
        Empty for what arrays of a size for tests cannot show: the rules on the text must.
    """

    file: str
    name: str
    old: str
    new: str
    ops: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}-{self.name}"

    def applied(self, text: str) -> str:
        """Return the file's text with the bug."""
        found = text.count(self.old)
        if found != 1:
            raise NotAMutantError(f"what it replaces is in {self.file} {found} times")
        return text.replace(self.old, self.new)


def planted(
    file: str, ops: tuple[str, ...], bugs: Mapping[str, tuple[str, str]]
) -> Iterator[Mutant]:
    """Return the mutants of a file by their names."""
    for name, (old, new) in bugs.items():
        yield Mutant(file, name, old, new, ops)
