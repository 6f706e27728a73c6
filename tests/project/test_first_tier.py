"""The first tier holds tests of every kind, and each value of every parameter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.first_tier import mark_slow

ROOT = Path(__file__).parents[2]
KINDS = {
    "values on NumPy": r"api/test_matmul_backward\.py::test_values\[numpy-",
    "values on the emulator": r"api/test_matmul_backward\.py::test_values\[emulator-",
    "values with CuPy": r"api/test_matmul_backward\.py::test_values\[cupy-",
    "tensor cores": r"api/test_matmul_backward\.py::test_values\[\w+-tensor-cores-",
    "the fused backward kernel": r"api/test_dense_sigmoid_backward\.py::test_\w+\[\w+-fused-",
    "bad input": r"api/test_bad_input\.py::",
    "layouts": r"api/test_layouts\.py::",
    "error bounds": r"api/test_accuracy\.py::",
    "bits": r"api/test_reproducible\.py::",
    "derivations": r"api/test_identities\.py::",
    "the compile gate": r"kernels/test_compile\.py::test_a_kernel_of_each_file_passes_the_gate",
    "contracts": r"kernels/test_contracts\.py::",
    "mutants of kernels": r"kernels/test_mutants\.py::test_mutant_is_caught\[",
    "mutants of the emulator": r"emulator/test_runtime_mutants\.py::test_mutant_is_caught\[",
    "mutants of the cache": r"api/test_cache_mutants\.py::",
    "the emulator": r"emulator/test_semantics\.py::",
    "the driver": r"driver/test_wrong_clients\.py::",
    "the played GPU": r"gpu/test_bound_calls\.py::",
    "threads on the CPU": r"cpu/test_threads\.py::",
    "plans": r"planning/test_plan\.py::",
    "arrays of other libraries": r"arrays/test_protocols\.py::",
    "PyTorch": r"adapters/test_torch_modules\.py::",
    "JAX": r"adapters/test_jax\.py::",
    "autograd": r"adapters/test_autograd\.py::",
    "docstrings": r"project/test_docstrings\.py::",
    "README": r"project/test_readme\.py::",
    "packaging": r"project/test_packaging\.py::",
    "the command line": r"cli/test_command\.py::",
    "benchmarks": r"bench/test_results\.py::",
    "other sources": r"emulator/test_measured_products\.py::",
    "references": r"testing/test_bounds\.py::",
}


class Item:
    """What a test is to the first tier."""

    def __init__(self, body: str, slow: bool = False, **params: object) -> None:
        self.nodeid = f"{body}[{'-'.join(map(str, params.values()))}]"
        self.slow = slow
        self.callspec = type("", (), {"params": params})

    def get_closest_marker(self, _: str) -> bool | None:
        return self.slow or None

    def add_marker(self, name: str) -> None:
        assert name == "slow"
        self.slow = True


def product(body: str, lower: int, upper: int) -> list[Item]:
    return [Item(body, a=a, b=b) for a in range(lower) for b in range(upper)]


@pytest.mark.parametrize("order", [1, -1])
def test_each_value_of_each_parameter_stays_once(order):
    items = [*product("one", 4, 5), *product("two", 1, 3)]
    mark_slow(items[::order])
    left = [one.callspec.params for one in items if not one.slow and one.nodeid.startswith("one")]
    assert {one["a"] for one in left} == set(range(4))
    assert {one["b"] for one in left} == set(range(5))
    assert len(left) <= 4 + 5
    assert not any(one.slow for one in items if one.nodeid.startswith("two"))
    again = [*product("one", 4, 5)]
    mark_slow(again)
    assert [one.slow for one in again] == [one.slow for one in items[:20]]


def test_what_is_slow_covers_nothing():
    items = [Item("one", slow=True, a=1), Item("one", a=1, b=2)]
    mark_slow(items)
    assert [one.slow for one in items] == [True, False]


def test_tests_without_parameters_stay():
    items = [Item("one"), Item("one")]
    mark_slow(items)
    assert not any(one.slow for one in items)


def test_the_commands_together_run_all_tests():
    """README's, CONTRIBUTING's and the Makefile's are one; `make test-slow` is the rest."""
    command = "-m pytest -q -n auto --dist loadfile"
    for document in ("README.md", "CONTRIBUTING.md"):
        assert f'{command} -m "not slow"\n' in (ROOT / document).read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"PYTEST = $(PYTHON) {command}\n" in makefile
    for target, options in (
        ("test", ' -m "not slow"'),
        ("test-slow", " -m slow"),
        ("test-all", ""),
    ):
        assert re.search(rf"^{target}:.*\n\t\$\(PYTEST\){options}$", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def first_tier() -> str:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "not slow", "-p"]
    run = subprocess.run(
        [*command, "no:cacheprovider", "tests"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_in_the_first_tier(first_tier: str, kind: str) -> None:
    if kind in ("PyTorch", "JAX", "autograd"):
        module = {"PyTorch": "torch"}.get(kind, kind.lower())
        pytest.importorskip(module, reason=f"needs {kind}")
    assert re.search(f"^tests/{KINDS[kind]}", first_tier, re.MULTILINE)


@pytest.mark.slow
def test_every_folder_is_in_the_first_tier(first_tier: str) -> None:
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == set(re.findall(r"^tests/(\w+)/", first_tier, re.MULTILINE))
