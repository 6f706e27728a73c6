"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import gpugrad


def modules():
    """The modules of the package that can be imported without a GPU or a framework.

    The examples of an adapter run with its tests.
    """
    adapters = ("gpugrad.torch", "gpugrad.jax", "gpugrad.autograd")
    for found in pkgutil.walk_packages(gpugrad.__path__, "gpugrad.", onerror=lambda name: None):
        if not found.name.startswith(adapters) and not found.name.endswith(
            ("__main__", "cupy_runtime")
        ):
            yield found.name


@pytest.mark.parametrize("name", ["gpugrad", *modules()])
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", ["gpugrad.backward", "gpugrad.forward", "gpugrad.gradcheck"])
def test_public_functions_have_examples(name):
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    found = [one for one in finder.find(importlib.import_module(name)) if one.examples]
    assert found
