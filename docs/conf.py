"""Configuration of the documentation: python -m sphinx -W --keep-going docs docs/_build."""

import importlib.abc
import importlib.machinery
import os
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules in the place of PyTorch and JAX, so that docstrings are read without them."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Find what is installed nowhere: this finder comes last."""
        if name.partition(".")[0] not in ("jax", "torch"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        """Make a module that has every attribute; some are more than a mock."""
        module = mock.MagicMock()
        module.__version_info__ = (sys.maxsize,)  # newer than what gpugrad.jax asks for
        for base in ("Module", "Function", "_SingleLevelFunction"):
            setattr(module, base, type(base, (), {"apply": None}))
        return module

    def exec_module(self, module: Any) -> None:
        """Leave it as it is."""


sys.meta_path.append(Mocks())

import gpugrad  # noqa: E402

project = "gpugrad"
author = "gpugrad developers"
release = version = gpugrad.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
nitpicky = True
default_role = "autolink"
autodoc_typehints = "none"
numpydoc_show_class_members = False
copybutton_exclude = ".linenos, .gp, .go"
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

html_theme = "pydata_sphinx_theme"
html_title = "gpugrad"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
}

ELSEWHERE = {  # pages whose text stands outside of docs/
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "driver": "tests/driver/README.md",
    "emulator": "tests/emulator/README.md",
    "examples": "examples/README.md",
}
PAGES = {path: f"docs/{page}.md" for page, path in ELSEWHERE.items()}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Read pages from where they stand, and make links between files those between pages.

    A link to a file that is no page lets it be downloaded; one to a folder is text.
    """
    if app.env.doc2path(page).suffix != ".md":
        return
    path = ELSEWHERE.get(page, f"docs/{page}.md")
    source[0] = (ROOT / path).read_text(encoding="utf-8")

    def link(found: re.Match[str]) -> str:
        text, to, anchor = found.groups(default="")
        target = os.path.normpath(Path(path).parent / to)
        if (ROOT / target).is_dir():
            return text
        target = PAGES.get(target, target)
        return f"[{text}]({os.path.relpath(target, Path('docs', page).parent)}{anchor})"

    source[0] = LINK.sub(link, source[0]).replace("\n\n```\n", "\n```\n")  # of doctests


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", read)
