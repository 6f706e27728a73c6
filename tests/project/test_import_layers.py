"""Which module may import which, and what `import gpugrad` costs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gpugrad

ROOT = Path(gpugrad.__file__).parent
FRAMEWORKS = {"cupy", "cupyx", "cuda", "torch", "jax", "autograd"}
ADAPTERS = {"torch", "jax", "autograd"}  # gpugrad.torch adapts torch, and so on
OUTSIDE = {"rich", "sklearn", "matplotlib"}
MODULES = sorted(ROOT.rglob("*.py"))
TESTS = ROOT.parent / "tests"
COMPONENTS = ("emulator", "driver", "independent_truth")  # of the tests, with a face each
OF_THE_PACKAGE = {  # what these may import of it: a plan is arithmetic, a profile knows no backend
    "errors": set(),
    "operations": {"errors"},
    "planning": {"operations", "planning"},
    "planning.machine_profile": {"operations", "planning", "host"},
    "arrays": {"arrays", "errors", "operations"},
}


def name_of(path):
    parts = ("gpugrad", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, *, only_at_import=False):
    """The modules that a file imports: all, or only those that importing it needs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = set()
    for node in ast.walk(tree):
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if deferred or typing:
            later.update(ast.walk(node))
    for node in ast.walk(tree):
        if only_at_import and node in later:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(imported, package):
    return imported == package or imported.startswith(f"{package}.")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_follow_the_arrows(path):
    module = name_of(path)
    layer = module.split(".")[1] if "." in module else ""
    for imported in imports(path):
        top, *inner = imported.split(".")
        assert top not in {"tests", "bench", "kernels"}
        if top == "gpugrad":
            private = [one for one in inner if one.startswith("_") and not one.startswith("__")]
            assert not private, "what is imported from another module is no private name"
        if layer == "cpu":
            assert not within(imported, "gpugrad.gpu")
            assert top not in FRAMEWORKS
        if layer == "gpu":
            assert not within(imported, "gpugrad.cpu")
        if layer not in ("cli", "__main__"):
            assert not within(imported, "gpugrad.cli")
        if layer not in ("cli", "__main__", "benchmark"):
            assert not within(imported, "gpugrad.benchmark")
            assert top not in OUTSIDE
        if layer not in ("cli", "benchmark", "testing"):
            assert not within(imported, "gpugrad.testing")
        known = OF_THE_PACKAGE.get(module.removeprefix("gpugrad."), OF_THE_PACKAGE.get(layer))
        if known is not None and top == "gpugrad":
            assert set(imported.split(".")[1:2]) <= known
        for adapter in ADAPTERS - {layer}:
            assert not within(imported, f"gpugrad.{adapter}")
        if layer in ("backward", "forward", *ADAPTERS):
            assert top not in FRAMEWORKS - {layer}
            assert not within(imported, "gpugrad.cpu")
            assert not within(imported, "gpugrad.gpu")


@pytest.mark.parametrize(
    "path", sorted(ROOT.with_name("bench").glob("*.py")), ids=lambda one: one.stem
)
def test_benchmarks_import_no_command_and_no_test(path):
    for imported in imports(path):
        assert not within(imported, "gpugrad.cli")
        assert not within(imported, "tests")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_frameworks_are_imported_by_who_needs_them(path):
    """CuPy only in gpu/, or inside a function; the others only in their own adapters."""
    module = name_of(path)
    own = module.removeprefix("gpugrad.").partition(".")[0]
    for imported in imports(path, only_at_import=True):
        top = imported.split(".")[0]
        if top in FRAMEWORKS:
            assert own == top or (own == "gpu" and top not in ADAPTERS)


def past_faces(text, own=""):
    """What a text imports of a component of the tests that its face does not name."""
    tree = ast.parse(text)
    for component in set(COMPONENTS) - {own}:
        face = ast.parse((TESTS / component / "__init__.py").read_text(encoding="utf-8"))
        assigned = [node.value for node in face.body if isinstance(node, ast.Assign)]
        public = ast.literal_eval(assigned[-1])  # __all__
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                rest = name.removeprefix(f"tests.{component}.")
                if rest != name and rest not in public:
                    yield name


@pytest.mark.parametrize("folder", ["bench", "gpugrad", "tests"])
def test_components_of_the_tests_are_imported_by_their_faces(folder):
    found = {}
    for path in sorted((ROOT.parent / folder).rglob("*.py")):
        parts = path.relative_to(ROOT.parent).parts
        found[path] = list(past_faces(path.read_text(encoding="utf-8"), own=parts[1]))
    assert found
    assert not {path: names for path, names in found.items() if names}


def test_an_import_past_a_face_is_found():
    planted = "from tests.emulator import Module\nfrom tests.emulator.build import HERE\n"
    assert list(past_faces(planted)) == ["tests.emulator.build.HERE"]
    assert not list(past_faces(planted, own="emulator"))
    assert list(past_faces("import tests.driver.library")) == ["tests.driver.library"]


def test_the_package_itself_reaches_no_backend():
    """What `import gpugrad` reads, followed from module to module."""
    paths = {name_of(path): path for path in MODULES}
    seen, waiting = set(), ["gpugrad"]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in paths:
            continue
        seen.add(module)
        for imported in imports(paths[module], only_at_import=True):
            waiting += [imported, imported.rpartition(".")[0]]
    assert not [module for module in seen if module.split(".")[1:2] in (["cpu"], ["gpu"], ["cli"])]


def run(code, *options):
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_no_framework():
    loaded = set(run("import gpugrad, sys; print(*sys.modules)").split())
    assert not loaded & (FRAMEWORKS | OUTSIDE | {"ml_dtypes", "gpugrad.gpu", "gpugrad.cpu"})


def test_import_gives_no_warning():
    """With whatever is installed, CuPy without a driver too."""
    assert run("import gpugrad", "-W", "error") == ""
    code = "import gpugrad, numpy; gpugrad.sigmoid(numpy.zeros(3)); print('done')"
    assert run(code, "-W", "error") == "done"


def test_import_costs_less_than_150_ms_beyond_numpy():
    """Of a processor, which other processes do not lengthen."""
    code = (
        "import time, numpy; start = time.process_time(); import gpugrad;"
        "print(time.process_time() - start)"
    )
    assert min(float(run(code)) for _ in range(5)) < 0.150


def test_public_names():
    assert gpugrad.__all__ == sorted(gpugrad.__all__)
    assert len(set(gpugrad.__all__)) == len(gpugrad.__all__)
    for name in gpugrad.__all__:
        assert getattr(gpugrad, name) is not None
    public = {name for name in vars(gpugrad) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(gpugrad, name)) is type(ast)}
    assert public - modules == {name for name in gpugrad.__all__ if not name.startswith("_")}


def test_every_public_function_is_documented():
    """With the sections that a reader looks for."""
    for name in gpugrad.__all__:
        public = getattr(gpugrad, name)
        if isinstance(public, str):
            continue
        assert public.__doc__, name
        if callable(public) and not isinstance(public, type):
            for section in ("Parameters", "Returns", "Raises", "Examples"):
                heading = f"{section}\n{'-' * len(section)}\n"
                assert heading in inspect.getdoc(public), (name, section)
