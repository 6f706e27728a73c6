"""The cache of compiled kernels: reused, shared, damaged, and where nothing can be written."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from gpugrad.errors import DeviceError, KernelCompileError
from gpugrad.gpu import cache
from gpugrad.gpu.compiler import Compiled
from gpugrad.planning.configurations import ELEMENTWISE, REDUCTION

MACROS = ("ELEMENT_F32", *ELEMENTWISE.macros)


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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for each test, in a process that remembers nothing."""
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_of_process", {})
    return tmp_path / "kernels"


def load(compiler: Compiler, stem: str = "sigmoid", arch: str = "sm_90") -> cache.Entry:
    return cache.load(stem, MACROS, arch, compiler)


def test_a_kernel_is_compiled_once(folder: Path, compiler: Compiler) -> None:
    first, second = load(compiler), load(compiler)
    assert first == second
    assert compiler.calls == 1
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
    entry.path.write_bytes(damage)
    with pytest.warns(RuntimeWarning, match="damaged") as caught:
        assert load(compiler) == entry
    assert len(caught) == 1
    assert entry.path.read_bytes() == entry.cubin
    assert load(compiler) == entry
    assert compiler.calls == 2


def fails(number: int) -> Any:
    """Return a function that fails as the operating system would."""

    def failing(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return failing


def opens(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
    """Open a file on a disk that is full: reading goes on."""
    if "x" in mode:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return open(path, mode, *rest, **options)  # noqa: PTH123  (Path's own is replaced by this)


def is_of_the_process(entry: cache.Entry, compiler: Compiler) -> None:
    """The code is in a file that keeps its path, and is not compiled again."""
    assert entry.path.read_bytes() == entry.cubin == entry.path.read_bytes()
    calls = compiler.calls
    assert load(compiler) is entry
    assert compiler.calls == calls


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize(("call", "full"), [("open", opens), ("replace", fails(errno.ENOSPC))])
def test_a_full_disk_leaves_the_kernel_in_a_file_of_the_process(
    folder: Path,
    compiler: Compiler,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: str,
    full: Any,
    memory: bool,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, call, full)
        with pytest.warns(RuntimeWarning, match="cannot be cached on disk.*No space left"):
            entry = load(compiler)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = load(compiler, arch="sm_80")  # warned once, not for every kernel
    assert other.path != entry.path
    is_of_the_process(entry, compiler)
    if not memory or not hasattr(os, "memfd_create"):
        assert entry.path.parent == tmp_path
    assert list(folder.iterdir()) == [], "a half-written file is left"


def test_where_no_file_at_all_can_be_made_the_error_is_of_the_package(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "mkstemp", fails(errno.EROFS))
    monkeypatch.setattr(Path, "mkdir", fails(errno.EROFS))
    with (
        pytest.warns(RuntimeWarning, match="cannot be cached on disk"),
        pytest.raises(DeviceError, match=r"^sigmoid: the compiled kernel cannot be written \("),
    ):
        load(compiler)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_other_users_of_the_folder_may_read_an_entry(compiler: Compiler, umask: int) -> None:
    before = os.umask(umask)
    try:
        entry = load(compiler)
    finally:
        os.umask(before)
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o666 & ~umask


def test_an_entry_that_may_not_be_read_is_compiled_and_replaced(
    folder: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = load(compiler)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails(errno.EACCES))  # root may read any file
        assert load(compiler) == entry
    assert compiler.calls == 2
    assert list(folder.iterdir()) == [entry.path]


def test_a_folder_that_cannot_be_made_leaves_the_kernel_in_a_file_of_the_process(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way stands for a read-only home: root may write to any folder."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    with pytest.warns(RuntimeWarning, match="cannot be cached on disk"):
        entry = load(compiler)
    is_of_the_process(entry, compiler)


def test_no_home_directory_leaves_the_kernel_in_a_file_of_the_process(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "folder", homeless)
    with pytest.warns(RuntimeWarning, match="home directory"):
        entry = load(compiler)
    is_of_the_process(entry, compiler)


def test_an_error_of_the_compiler_leaves_nothing(folder: Path) -> None:
    def broken(*_: object, **__: object) -> Compiled:
        raise KernelCompileError("sigmoid: no", log="why")

    with pytest.raises(KernelCompileError, match="no"):
        cache.load("sigmoid", MACROS, "sm_90", broken)
    assert not folder.exists()


@pytest.mark.slow
def test_processes_at_once_agree_on_one_entry(folder: Path) -> None:
    program = (
        "from gpugrad.gpu import cache;"
        f"entry = cache.load('reduce_splits', {('ELEMENT_F32', *REDUCTION.macros)}, 'sm_90');"
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
    ("variables", "expected"),
    [
        ({"GPUGRAD_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"GPUGRAD_CACHE_DIR": "~/a"}, "/c/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/gpugrad/kernels"),
        ({"GPUGRAD_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "/b/gpugrad/kernels"),
        ({"GPUGRAD_CACHE_DIR": "", "XDG_CACHE_HOME": ""}, "/c/.cache/gpugrad/kernels"),
        ({}, "/c/.cache/gpugrad/kernels"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("GPUGRAD_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/c"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache.folder() == Path(expected)
