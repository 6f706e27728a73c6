"""The CuPy runtime's own logic: memoised kernels, opt-in to shared memory, copies to the host."""

import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests import driver
from tests.conftest import ON_A_GPU

MACROS = ("ELEMENT_F32",)
counts_calls = pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")


@pytest.fixture
def runtime(gpu):
    """A runtime that has no kernel yet."""
    from gpugrad.gpu import cupy_runtime

    cupy_runtime._kernel.cache_clear()
    cupy_runtime._module.cache_clear()
    return cupy_runtime.CupyRuntime()


@counts_calls
def test_kernels_are_loaded_once_from_the_cache_file(runtime, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    before = driver.calls()
    kernel = runtime.kernel("reduce_splits", "reduce_splits", MACROS)
    assert kernel is runtime.kernel("reduce_splits", "reduce_splits", MACROS)
    assert kernel.kernel.ptr
    assert (driver.calls() - before)["cuModuleLoad"] == 1
    other = runtime.kernel("reduce_splits", "reduce_splits", ("ELEMENT_F64",))
    assert other.kernel.ptr != kernel.kernel.ptr
    assert (driver.calls() - before)["cuModuleLoad"] == 2
    assert kernel.name == "reduce_splits"
    assert Path(kernel.file_path).read_bytes().startswith(b"\x7fELF")


def test_more_than_48_kib_of_shared_memory_is_opted_into(runtime):
    small = runtime.kernel("reduce_splits", "reduce_splits", MACROS, 40 << 10)
    large = runtime.kernel("reduce_splits", "reduce_splits", MACROS, 100 << 10)
    assert small.keywords == {"shared_mem": 40 << 10}
    assert large.keywords == {"shared_mem": 100 << 10}
    assert large.func.max_dynamic_shared_size_bytes == 100 << 10


LAYOUTS = {
    "C": lambda out: out,
    "F": lambda out: out.T,
    "a column": lambda out: out[:, :1],
    "strided": lambda out: out[::2, ::-3],
    "nothing": lambda out: out[:0],
}


@pytest.mark.parametrize("dtype", ["f4", "f8", ml_dtypes.bfloat16])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_to_the_host_have_its_layout(runtime, layout, order, dtype):
    import cupy

    memory = np.full((64, 96), 7, dtype)
    out = LAYOUTS[layout](memory)
    expected = memory.copy()
    values = np.arange(out.size).reshape(out.shape).astype(dtype)
    LAYOUTS[layout](expected)[...] = values
    runtime.to_host(cupy.array(values, order=order), out)
    np.testing.assert_array_equal(memory, expected)


@counts_calls
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_copy_to_contiguous_memory_is_one_copy(runtime, layout):
    import cupy

    out = LAYOUTS[layout](np.zeros((256, 512), "f4"))
    array = cupy.ones(out.shape, "f4")
    runtime.to_host(array, out)  # compiles
    before = driver.calls()
    tracemalloc.start()
    runtime.to_host(array, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (driver.calls() - before)["memcpyAsync"] == 1
    assert peak < out.nbytes / 8
