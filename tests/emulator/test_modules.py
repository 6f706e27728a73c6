"""Compilation: what is found in a source, what a cached module depends on, and failures."""

import multiprocessing
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.emulator import EmulatorError, MissingTool, Module, cache, toolchain, uninitialised

KERNEL = """#include "value.cuh"
#define KERNEL(name) extern "C" __global__ void name(int* out) { *out = value() + ADD; }
KERNEL(hidden)
// extern "C" __global__ void commented_out(int* out) {}
extern "C" __global__ void __launch_bounds__(256, (1 + 1))
plain(int* out) { *out = value() + ADD; }
extern "C" __global__ __launch_bounds__(32) void bounds_first(int* out) { *out = value(); }
template <int N> __global__ void counted(int* out) { *out = N; }
"""


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    (tmp_path / "value.cuh").write_text('#include "parts/constant.cuh"\n', encoding="utf-8")
    (tmp_path / "parts").mkdir()
    set_constant(tmp_path, 1)
    (tmp_path / "kernel.cu").write_text(KERNEL, encoding="utf-8")
    return tmp_path / "kernel.cu"


def set_constant(folder: Path, value: int) -> None:
    text = f"#pragma once\n__device__ inline int value() {{ return {value}; }}\n"
    (folder / "parts" / "constant.cuh").write_text(text, encoding="utf-8")


def result(module: Module, name: str) -> int:
    out = uninitialised(1, np.int32)
    module.get_function(name)((1,), (1,), (out,))
    return int(out[0])


def test_kernels_are_found_or_named(kernel_file: Path) -> None:
    found = Module(kernel_file, defines=("ADD=0",))
    assert found.functions == ["plain", "bounds_first"]
    named = Module(kernel_file, defines=("ADD=0",), functions=["hidden", "counted<7>"])
    assert [result(named, "hidden"), result(named, "counted<7>")] == [1, 7]
    with pytest.raises(EmulatorError, match=r"kernel.cu has no kernel hidden; it has \['plain'"):
        found.get_function("hidden")
    with pytest.raises(EmulatorError, match="no kernel found"):
        Module("\nint x;\n")


def test_defines_tell_instantiations_apart(kernel_file: Path) -> None:
    first, second = (Module(kernel_file, defines=(f"ADD={n}",)) for n in (10, 20))
    assert first.path != second.path
    assert [result(first, "plain"), result(second, "plain")] == [11, 21]
    assert Module(kernel_file, defines=("ADD=10",)).path == first.path
    assert result(Module(kernel_file, defines=("ADD",)), "plain") == 2


def test_a_change_in_an_included_header_is_noticed(kernel_file: Path) -> None:
    before = Module(kernel_file, defines=("ADD=0",))
    set_constant(kernel_file.parent, 5)
    after = Module(kernel_file, defines=("ADD=0",))
    assert [result(before, "plain"), result(after, "plain")] == [1, 5]


def test_source_text_and_include_folders(kernel_file: Path) -> None:
    module = Module(KERNEL, defines=("ADD=2",), include_dirs=(kernel_file.parent,))
    assert result(module, "plain") == 3


def test_architecture() -> None:
    text = '\nextern "C" __global__ void arch(int* out) { *out = __CUDA_ARCH__; }\n'
    assert [result(Module(text, arch=arch), "arch") for arch in (750, 900)] == [750, 900]


def test_compile_errors_are_shown() -> None:
    with pytest.raises(EmulatorError, match=r"source.cu:2:.*'nonsense' was not declared") as caught:
        Module('\nextern "C" __global__ void bad(int* out) { *out = nonsense; }\n')
    assert "g++" in str(caught.value)
    with pytest.raises(EmulatorError, match="mode is 'slow'"):
        Module("\n", mode="slow")


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    toolchain.compiler.cache_clear()
    try:
        with pytest.raises(MissingTool, match=r"needs g\+\+, which is not installed"):
            toolchain.compiler()
        with pytest.raises(MissingTool, match="needs readelf, which is not installed"):
            toolchain.run(["readelf", "--version"])
    finally:
        toolchain.compiler.cache_clear()


def build_slowly(cache_folder: str) -> bool:
    """Build something that takes a while; True if this process was the one that did."""
    os.environ["GPUGRAD_EMULATOR_CACHE"] = cache_folder
    built_here = []

    def build(target: Path) -> None:
        time.sleep(0.5)
        built_here.append(target)
        target.write_text("whole", encoding="utf-8")

    assert cache.built("thing", build).read_text(encoding="utf-8") == "whole"
    return bool(built_here)


def test_processes_that_want_the_same_thing_build_it_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sorted(pool.map(build_slowly, [str(tmp_path)] * 2, chunksize=1)) == [False, True]
    assert not list(tmp_path.glob("building-*"))


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUGRAD_EMULATOR_CACHE", str(tmp_path))

    def build(target: Path) -> None:
        target.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.built("thing", build)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_functions_are_found_while_another_thread_launches() -> None:
    text = '\nextern "C" __global__ void f(int* y) { for (int i = 0; i < 300000; i++) *y += 1; }\n'
    module = Module(text)
    y = np.zeros(1, np.int32)
    with ThreadPoolExecutor(1) as pool:
        launch = pool.submit(module.get_function("f"), (1,), (1,), (y,))
        while not launch.done():
            module.get_function("f")
    launch.result()
    assert y == 300000


def test_threads_may_launch_at_once() -> None:
    text = '\nextern "C" __global__ void f(int* out) { *out = ADD; __syncthreads(); }\n'
    modules = [Module(text, defines=(f"ADD={n}",)) for n in range(2)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: result(modules[i % 2], "f"), range(40)))
    assert found == [0, 1] * 20


def test_memory_of_a_launch_is_not_kept_for_each_module() -> None:
    text = """
    extern "C" __global__ void f(int* out) {
      __shared__ int turned[1024];
      __shared__ unsigned long long all;
      turned[threadIdx.x] = threadIdx.x;
      if (threadIdx.x == 0) ptx::mbar_init(&all, 1024);
      __syncthreads();
      ptx::mbar_arrive(&all);
      ptx::mbar_wait(&all, 0);  // each thread gets a clock of its own
      out[threadIdx.x] = turned[1023 - threadIdx.x] + ADD;
    }
    """
    threads = 1024
    out = np.zeros(threads, np.int32)

    def launched(add: int) -> Module:
        module = Module(text, defines=(f"ADD={add}",))
        module.get_function("f")((1,), (threads,), (out,))
        assert out[0] == threads - 1 + add
        return module

    kept = [launched(0)]
    before = resident_bytes()
    kept += map(launched, range(1, 5))
    assert resident_bytes() - before < 4 * threads * 1024  # its stack alone has two pages a thread


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
