"""The README's examples run, and print what they say."""

import doctest
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", "autograd": "autograd"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_example(block):
    for module, name in FRAMEWORKS.items():
        if f"gpugrad.{module}" in block:
            pytest.importorskip(module, reason=f"needs {name}")
    example = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_every_framework_has_an_example_of_five_lines():
    for module in FRAMEWORKS:
        (block,) = (
            one
            for one in BLOCKS
            if f"import gpugrad.{module}" in one or f", gpugrad.{module}" in one
        )
        assert sum(line.startswith((">>>", "...")) for line in block.splitlines()) <= 5
