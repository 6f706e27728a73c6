"""The source files of the kernels, and their text with includes expanded."""

import functools
import re
from importlib.resources import files
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"\s*$')


@functools.cache
def directory() -> Path:
    """Return the folder of kernels: in the installed package, or next to it in a source tree."""
    inside = Path(str(files("gpugrad"))) / "_kernels"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "kernels"


def stems() -> list[str]:
    """List the kernel files by stem."""
    return sorted(path.stem for path in directory().glob("*.cu"))


def expand(stem: str) -> str:
    """Return `<stem>.cu` with its local includes expanded once each, with `#line` directives.

    The result is the compiler's input and part of the cache's key. Messages of the compiler keep
    their file names and lines.
    """
    return "\n".join(_expand(directory() / f"{stem}.cu", set())) + "\n"


def _expand(path: Path, done: set[str]) -> list[str]:
    done.add(path.name)
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            if match[1] not in done:
                lines += _expand(path.parent / match[1], done)
            lines.append(f'#line {number + 1} "{path.name}"')
        elif line.strip() != "#pragma once":
            lines.append(line)
        else:
            lines.append("")
    return lines
