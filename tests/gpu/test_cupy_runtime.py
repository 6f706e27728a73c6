"""The CuPy runtime's own logic: memoised kernels, opt-in to shared memory, copies to the host."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from gpugrad.planning.configurations import REDUCTION
from tests import driver
from tests.conftest import ON_A_GPU

MACROS = ("ELEMENT_F32", *REDUCTION.macros)
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of cuda.h
counts_calls = pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")


@pytest.fixture
def runtime(gpu):
    """A runtime that has no kernel yet."""
    from gpugrad.gpu import cupy_runtime

    cupy_runtime.kernel.cache_clear()
    cupy_runtime._module.cache_clear()
    return cupy_runtime.CupyRuntime()


@counts_calls
def test_kernels_are_loaded_once_from_the_cache_file(runtime, monkeypatch, tmp_path):
    from gpugrad.gpu.cupy_runtime import kernel

    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    before = driver.calls()
    one = kernel("reduce_splits", "reduce_splits", MACROS, 0, 0)
    assert one == kernel("reduce_splits", "reduce_splits", MACROS, 0, 0)
    assert (driver.calls() - before)["cuModuleLoad"] == 1
    other = kernel("reduce_splits", "reduce_splits", ("ELEMENT_F64", *REDUCTION.macros), 0, 0)
    assert other not in (0, one)
    assert (driver.calls() - before)["cuModuleLoad"] == 2
    files = [*tmp_path.rglob("*.cubin")]
    assert len(files) == 2
    assert all(file.read_bytes().startswith(b"\x7fELF") for file in files)


def test_more_than_48_kib_of_shared_memory_is_opted_into(runtime):
    import cupy

    from gpugrad.gpu.cupy_runtime import kernel

    ask = cupy.cuda.driver.funcGetAttribute
    small = kernel("reduce_splits", "reduce_splits", MACROS, 40 << 10, 0)
    assert 40 << 10 <= ask(MAX_DYNAMIC_SHARED, small) <= 48 << 10
    large = kernel("reduce_splits", "reduce_splits", MACROS, 100 << 10, 0)
    assert ask(MAX_DYNAMIC_SHARED, large) == 100 << 10


def test_another_kernel_of_a_loaded_file_in_a_new_thread(runtime):
    """Which has no context of its own, and loads no file that would make one current."""
    from gpugrad.gpu.cupy_runtime import kernel

    one = kernel("reduce_splits", "reduce_splits", MACROS, 0, 0)
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(kernel, "reduce_splits", "reduce_layer_splits", MACROS, 0, 0)
    assert other.result() not in (0, one)


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
