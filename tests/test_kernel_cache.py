"""The cache of compiled kernels: reused, shared, damaged, and where nothing can be written."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from gpugrad.errors import KernelCompileError
from gpugrad.gpu import cache
from gpugrad.gpu.compiler import Compiled

MACROS = ("ELEMENT_F32",)


class Compiler:
    """Counts its calls, and gives a different program for each architecture."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, stem: str, macros: tuple[str, ...], arch: str, *, text: str) -> Compiled:
        self.calls += 1
        return Compiled(f"{stem} {macros} {arch} {len(text)}".encode(), "")


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "kernels"


def load(compiler: Compiler, stem: str = "sigmoid", arch: str = "sm_90") -> cache.Entry:
    return cache.load(stem, MACROS, arch, compiler)


def test_a_kernel_is_compiled_once(folder: Path, compiler: Compiler) -> None:
    first, second = load(compiler), load(compiler)
    assert first == second
    assert compiler.calls == 1
    assert first.path is not None
    assert first.path.read_bytes() == first.cubin
    assert cache.summary() == (folder, 1, len(first.cubin))


def test_whatever_decides_the_code_is_in_the_key(
    folder: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(compiler)
    load(compiler, arch="sm_80")
    load(compiler, stem="sigmoid_backward")
    cache.load("sigmoid", ("ELEMENT_F64",), "sm_90", compiler)
    monkeypatch.setattr(cache.compiler, "fingerprint", lambda: "another compiler")
    load(compiler)
    expand = cache.source.expand
    monkeypatch.setattr(cache.source, "expand", lambda stem: expand(stem) + "// edited\n")
    load(compiler)
    assert compiler.calls == 6


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 1000])
def test_a_damaged_entry_is_compiled_anew_with_one_warning(
    folder: Path, compiler: Compiler, damage: bytes
) -> None:
    entry = load(compiler)
    assert entry.path is not None
    entry.path.write_bytes(damage)
    with pytest.warns(RuntimeWarning, match="damaged") as caught:
        assert load(compiler) == entry
    assert len(caught) == 1
    assert entry.path.read_bytes() == entry.cubin
    assert load(compiler) == entry
    assert compiler.calls == 2


def test_a_full_disk_leaves_the_kernel_in_memory(
    folder: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.warns(RuntimeWarning, match="cannot be kept on disk.*No space left"):
        entry = load(compiler)
    assert entry.path is None
    assert entry.cubin
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(compiler, arch="sm_80")  # warned once, not for every kernel
    assert list(folder.iterdir()) == [], "a half-written file is left"


def test_a_folder_that_cannot_be_made_leaves_the_kernel_in_memory(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way stands for a read-only home: root may write to any folder."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    monkeypatch.setattr(cache, "_warned", set())
    with pytest.warns(RuntimeWarning, match="cannot be kept on disk"):
        assert load(compiler).path is None


def test_no_home_directory_leaves_the_kernel_in_memory(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "folder", homeless)
    monkeypatch.setattr(cache, "_warned", set())
    with pytest.warns(RuntimeWarning, match="home directory"):
        assert load(compiler).path is None


def test_an_error_of_the_compiler_leaves_nothing(folder: Path) -> None:
    def broken(*_: object, **__: object) -> Compiled:
        raise KernelCompileError("sigmoid: no", log="why")

    with pytest.raises(KernelCompileError, match="no"):
        cache.load("sigmoid", MACROS, "sm_90", broken)
    assert not folder.exists()


def test_processes_at_once_agree_on_one_entry(folder: Path) -> None:
    program = (
        "from gpugrad.gpu import cache;"
        "entry = cache.load('reduce_splits', ('ELEMENT_F32',), 'sm_90');"
        "print(entry.path, len(entry.cubin))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0] * 4
    assert len(answers) == 1
    assert [path.suffix for path in folder.iterdir()] == [".cubin"]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("GPUGRAD_CACHE_DIR", "/a", "/a"),
        ("XDG_CACHE_HOME", "/b", "/b/gpugrad/kernels"),
        ("HOME", "/c", "/c/.cache/gpugrad/kernels"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.delenv("GPUGRAD_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, value)
    assert cache.folder() == Path(expected)
