"""The examples of the README and of the documentation's pages run, and print what they say."""

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks(path):
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


BLOCKS = blocks(ROOT / "README.md")
PAGES = {
    path.relative_to(ROOT).as_posix(): found
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if (found := blocks(path))
}
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "autograd": "autograd"}


def run(text, name):
    for module, framework in FRAMEWORKS.items():
        if f"gpugrad.{module}" in text:
            pytest.importorskip(module, reason=f"needs {framework}")
    example = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert example.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example).failed == 0


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_example(block):
    run(block, "README.md")


@pytest.mark.parametrize("page", PAGES)
def test_page(page, request, monkeypatch):
    """A page's examples share their names; those of CuPy run on the played driver."""
    text = "\n".join(PAGES[page])
    if "import cupy" in text:
        request.getfixturevalue("gpu")
    monkeypatch.chdir(ROOT)
    run(text, page)


def test_every_framework_has_an_example_of_five_lines():
    for module in FRAMEWORKS:
        (block,) = (
            one
            for one in BLOCKS
            if f"import gpugrad.{module}" in one or f", gpugrad.{module}" in one
        )
        assert sum(line.startswith((">>>", "...")) for line in block.splitlines()) <= 5


@pytest.mark.parametrize("package", ["", *FRAMEWORKS])
def test_the_reference_has_every_public_name(package):
    tree = ast.parse((ROOT / "gpugrad" / package / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    page = "adapters" if package else "core"
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    module = f"gpugrad.{package}".rstrip(".")
    sections = text.split(".. currentmodule:: ")
    listed = [
        line.strip()
        for section in sections
        if section.split("\n", 1)[0] == module
        for line in section.splitlines()
        if re.fullmatch(r"   \w+", line)
    ]
    assert sorted(listed) == sorted(name for name in names if not name.startswith("_"))
