"""What a .cu file says about itself: its local headers, kernels, parameters, shared arrays."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
DYNAMIC_ARRAY = re.compile(r"extern\s+__shared__[^;]*?(\w+)\s*\[\s*\]\s*;")
BALANCED = r"(?:[^()]|\([^()]*\))*"
ATTRIBUTES = rf"(?:__(?:launch_bounds|cluster_dims)__\s*\({BALANCED}\)\s*)*"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{ATTRIBUTES}void\s+{ATTRIBUTES}(\w+)\s*\(')
MACRO = re.compile(r"^\s*#\s*define\b(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A kernel file: `code` compiles it, `texts` are its own and its local headers'."""

    name: str
    code: str
    folders: tuple[Path, ...]
    texts: tuple[str, ...]

    def kernels(self) -> list[str]:
        """Return the names of the kernels that are declared as extern "C" __global__."""
        text = MACRO.sub("", "\n".join(map(without_comments, self.texts)))
        return list(dict.fromkeys(KERNEL.findall(text)))

    def attribute(self, kernel: str, attribute: str) -> str:
        """Return the arguments of an attribute of an extern "C" kernel; "" if it has none."""
        name = rf"{re.escape(kernel)}\s*\("
        pattern = rf'extern\s+"C"\s+__global__\s+({ATTRIBUTES})void\s+({ATTRIBUTES}){name}'
        declared = re.findall(pattern, "\n".join(map(without_comments, self.texts)))
        attributes = "".join(text for pair in declared for text in pair)
        found = re.findall(rf"{attribute}\s*\(({BALANCED})\)", attributes)
        return found[0] if len(found) == 1 else ""

    def dynamic_arrays(self) -> list[str]:
        """Return the names of the extern __shared__ arrays."""
        return sorted(set(DYNAMIC_ARRAY.findall("\n".join(map(without_comments, self.texts)))))

    def parameters(self, kernel: str, count: int) -> list[str]:
        """Return the names of a kernel's parameters, or their numbers if not in the source."""
        pattern = re.compile(rf"\b{re.escape(kernel.split('<')[0])}\s*\(([^()]*)\)")
        for text in map(without_comments, self.texts):
            for declared in pattern.findall(text):
                names = [re.search(r"(\w+)\s*$", part) for part in declared.split(",")]
                if len(names) == count and all(names):
                    return [name.group(1) for name in names if name]
        return [""] * count


def without_comments(text: str) -> str:
    """Return the text without C++ comments."""
    return COMMENT.sub(" ", text)


def read(path_or_source: str | os.PathLike[str], include_dirs: Iterable[str | Path]) -> Source:
    """Read a .cu file, or take a source text; with all the local headers that it includes."""
    folders = [Path(folder).resolve() for folder in include_dirs]
    if isinstance(path_or_source, str) and "\n" in path_or_source:
        text, name = path_or_source, "source.cu"
        code = f'#line 1 "{name}"\n{text}'
    else:
        path = Path(path_or_source).resolve()
        text, name = path.read_text(encoding="utf-8"), path.name
        code = f'#include "{path}"\n'
        folders.insert(0, path.parent)
    headers = local_headers(text, folders)
    return Source(name, code, tuple(folders), (text, *headers))


def local_headers(text: str, folders: Iterable[Path]) -> list[str]:
    """Return the headers that `text` includes by quoted names, directly or through others."""
    found: dict[Path, str] = {}

    def visit(content: str, places: list[Path]) -> None:
        for name in INCLUDE.findall(content):
            path = next((p / name for p in places if (p / name).is_file()), None)
            if path is None or path.resolve() in found:
                continue
            found[path.resolve()] = path.read_text(encoding="utf-8")
            visit(found[path.resolve()], [path.resolve().parent, *folders])

    visit(text, list(folders))
    return list(found.values())
