"""What is built from the tree holds the kernels, and finds them where it is installed."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gpugrad

ROOT = Path(__file__).parents[2]


def kernels():
    """The kernels of the tree, by name."""
    return {path.name: path.read_bytes() for path in (ROOT / "kernels").iterdir() if path.is_file()}


def run(*command, **options):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, the wheel built from it, and the wheel built from the tree."""
    folder = tmp_path_factory.mktemp("built")
    run("-m", "build", "--no-isolation", "--outdir", folder / "sdist", ROOT)
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", folder / "tree", ROOT)
    (sdist,) = (folder / "sdist").glob("*.tar.gz")
    (from_sdist,) = (folder / "sdist").glob("*.whl")
    (from_tree,) = (folder / "tree").glob("*.whl")
    return {"sdist": sdist, "from sdist": from_sdist, "from tree": from_tree}


@pytest.mark.parametrize("which", ["from sdist", "from tree"])
def test_wheel(built, which):
    with zipfile.ZipFile(built[which]) as wheel:
        names = set(wheel.namelist())
        inside = {
            Path(name).name: wheel.read(name)
            for name in names
            if name.startswith("gpugrad/_kernels/")
        }
    assert inside == kernels()
    assert "gpugrad/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gpugrad"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gpugrad").rglob("*.py")}
    assert sources <= names


def test_sdist(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"kernels/{name}" for name in kernels()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert any(name.startswith("tests/emulator/") for name in names)


def test_installed_elsewhere(built, tmp_path):
    """The package's own lookup finds the kernels that were installed with it."""
    target = tmp_path / "site"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, built["from tree"])
    code = (
        "import gpugrad; from gpugrad.gpu import source; folder = source.directory();"
        "print(folder); print(*sorted(path.name for path in folder.iterdir()), sep='\\n')"
    )
    folder, *names = run(
        "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)}
    ).splitlines()
    assert Path(folder) == target / "gpugrad" / "_kernels"
    assert set(names) == set(kernels())


def test_checkout():
    """Without an installation the kernels beside the package are used."""
    code = "from gpugrad.gpu import source; print(source.directory())"
    assert Path(run("-c", code, cwd=ROOT).strip()) == ROOT / "kernels"


def test_no_extra_takes_a_cuda_core_that_does_not_import():
    """1.0.0 fails beside cuda.bindings 13.0.3."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [Requirement(one) for of in project["optional-dependencies"].values() for one in of]
    cores = [one for one in every if one.name == "cuda-core"]
    assert [sorted(one.extras) for one in cores] == [["cu12"], ["cu13"]]
    assert not any(one.specifier.contains("1.0.0") for one in cores)
    assert all(one.specifier.contains("1.0.1") for one in cores)


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {gpugrad.__version__}\n" in text
