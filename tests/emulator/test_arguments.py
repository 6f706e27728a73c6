"""How arrays and scalars reach a kernel, and which of them are refused."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, TensorMap, uninitialised

SOURCE = """
extern "C" __global__ void copy(const float* x, long long x_row, long long x_column, float* y,
                                long long y_row, long long y_column, int rows, int columns) {
  for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
    const int r = i / columns, c = i % columns;
    y[r * y_row + c * y_column] = x[r * x_row + c * x_column];
  }
}
extern "C" __global__ void add_one(float* x, const float* y, int n) {
  if (threadIdx.x < n) x[threadIdx.x] = y[threadIdx.x] + 1.f;
}
extern "C" __global__ void address(const void* x, unsigned long long* out) {
  *out = reinterpret_cast<unsigned long long>(x) % 16;
}
extern "C" __global__ void halves(const __half* x, __nv_bfloat16* y) {
  y[threadIdx.x] = __float2bfloat16_rn(__half2float(x[threadIdx.x]));
}
extern "C" __global__ void scalars(int i, unsigned u, long long l, float f, bool b) {}
struct alignas(64) Map { char opaque[128]; };
extern "C" __global__ void read_box(const __grid_constant__ Map map, float* y) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&ready, 1);
    ptx::fence_mbar_init();
    ptx::mbar_expect_tx(&ready, sizeof box);
    ptx::tma_load_2d(box, &map, 2, 1, &ready);
  }
  __syncthreads();
  ptx::mbar_wait(&ready, 0);
  y[threadIdx.x] = box[threadIdx.x];
}
"""


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(SOURCE)


def element_strides(array: np.ndarray) -> list[np.int64]:
    return [np.int64(stride // array.itemsize) for stride in array.strides]


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": lambda a: a[:5, :7],
    "transposed": lambda a: a[:7, :5].T,
    "reversed": lambda a: a[4::-1, 6::-1],
    "steps": lambda a: a[::2, ::3][:5, :7],
    "one row repeated": lambda a: np.broadcast_to(a[3, :7], (5, 7)),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("out", ["contiguous", "transposed", "reversed", "steps"])
def test_strides(module: Module, view: str, out: str) -> None:
    x = VIEWS[view](np.arange(24 * 24, dtype=np.float32).reshape(24, 24))
    whole = np.full((24, 24), -1, np.float32)
    y = VIEWS[out](whole)
    args = (x, *element_strides(x), y, *element_strides(y), np.int32(5), np.int32(7))
    module.get_function("copy")((1,), (32,), args)
    np.testing.assert_array_equal(y, x)
    assert np.count_nonzero(whole != -1) == 35


def test_overlapping_arrays_share_memory(module: Module) -> None:
    memory = np.arange(40, dtype=np.float32)
    module.get_function("add_one")((1,), (32,), (memory[4:36], memory[4:36], np.int32(32)))
    np.testing.assert_array_equal(memory[4:36], np.arange(5, 37))
    with pytest.raises(EmulatorError, match=r"race: read .* element \[1\]"):
        module.get_function("add_one")((1,), (32,), (memory[1:33], memory[:32], np.int32(32)))


def test_no_elements(module: Module) -> None:
    empty = np.zeros(0, np.float32)
    module.get_function("add_one")((1,), (32,), (empty, empty, np.int32(0)))
    with pytest.raises(EmulatorError, match=r"out-of-bounds read of 4 bytes: argument 1 \(y\)"):
        module.get_function("add_one")((1,), (32,), (empty, empty, np.int32(1)))


@pytest.mark.parametrize("offset", range(0, 16, 4))
def test_alignment_is_kept(module: Module, offset: int) -> None:
    memory = np.zeros(64, np.uint8)
    start = -memory.ctypes.data % 16 + offset
    out = uninitialised(1, np.uint64)
    module.get_function("address")((1,), (1,), (memory[start : start + 12], out))
    assert out[0] == offset


def test_16_bit_arrays(module: Module) -> None:
    x = np.array([1, -2.5, 1e-7, np.inf], np.float16)
    y = uninitialised(4, ml_dtypes.bfloat16)
    module.get_function("halves")((1,), (4,), (x, y))
    np.testing.assert_array_equal(y.view(np.uint16), x.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_what_was_written_counts_as_initialised(module: Module) -> None:
    y, z = uninitialised(8), uninitialised(8)
    module.get_function("add_one")((1,), (8,), (y, np.zeros(8, np.float32), np.int32(8)))
    module.get_function("add_one")((1,), (8,), (z, y, np.int32(8)))
    assert (z == 2).all()
    z[:4] = np.nan
    module.get_function("add_one")((1,), (8,), (y, z, np.int32(8)))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, ml_dtypes.bfloat16])
def test_uninitialised_arrays(shape: tuple[int, ...], dtype: Any) -> None:
    array = uninitialised(shape, dtype)
    assert (array.shape, array.dtype, type(array)) == (shape, dtype, np.ndarray)
    if dtype is not np.int8:
        assert np.isnan(array.astype(np.float64)).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y[::2].T,
        lambda y: np.lib.stride_tricks.as_strided(y, (4,), (8,)),
        lambda y: np.lib.stride_tricks.as_strided(y.reshape(2, 4), (4, 1), (8, 4))[::-1, 0],
    ],
    ids=["slices", "as_strided", "views of both kinds"],
)
def test_views_of_uninitialised_arrays(
    module: Module, view: Callable[[np.ndarray], np.ndarray]
) -> None:
    z = np.zeros(4, np.float32)
    with pytest.raises(EmulatorError, match="read of uninitialised memory"):
        module.get_function("add_one")((1,), (4,), (z, view(uninitialised(8)), np.int32(4)))


def test_boxes_of_a_tensor_map(module: Module) -> None:
    x, y = np.arange(40, dtype=np.float32).reshape(5, 8)[:, :7], uninitialised((4, 8))
    for eager in (False, True):
        tensor_map = TensorMap(x, (4, 8), swizzle=0)
        module.get_function("read_box")((1,), (32,), (tensor_map, y), eager_copies=eager)
        np.testing.assert_array_equal(y, np.pad(x[1:, 2:], ((0, 0), (0, 3))))


@pytest.mark.parametrize(
    ("shape", "box", "swizzle", "text"),
    [
        ((8,), (4, 4), 0, "rows must be contiguous"),
        ((8, 7), (4, 4), 0, "must be 16-byte aligned"),
        ((8, 8), (4, 300), 0, "box is"),
        ((8, 8), (4, 3), 0, "a row of the box has 12 bytes"),
        ((8, 64), (4, 64), 128, "a row of the box has 256 bytes"),
        ((8, 8), (4, 4), 48, "swizzle is 48"),
    ],
)
def test_refused_tensor_maps(
    shape: tuple[int, ...], box: tuple[int, int], swizzle: int, text: str
) -> None:
    with pytest.raises(EmulatorError, match=f"tensor map: {text}|tensor map: .* {text}"):
        TensorMap(np.zeros(shape, np.float32), box, swizzle)


GOOD = (np.int32(1), np.uint32(1), np.int64(1), np.float32(1), np.bool_(True))


@pytest.mark.parametrize(
    ("index", "value", "text"),
    [
        (0, np.int64(1), r"argument 0 \(i\): the kernel takes int32, got int64"),
        (0, np.uint32(1), r"argument 0 \(i\): the kernel takes int32, got uint32"),
        (1, np.int32(1), r"argument 1 \(u\): the kernel takes uint32, got int32"),
        (2, 1, r"argument 2 \(l\): a NumPy scalar of a definite type is needed, got int"),
        (3, np.float64(1), r"argument 3 \(f\): the kernel takes float32, got float64"),
        (3, np.zeros(1, np.float32), r"argument 3 \(f\): an array is given for a scalar"),
        (4, np.int8(1), r"argument 4 \(b\): the kernel takes bool, got int8"),
    ],
)
def test_refused_scalars(module: Module, index: int, value: Any, text: str) -> None:
    args = [*GOOD]
    args[index] = value
    with pytest.raises(EmulatorError, match=text):
        module.get_function("scalars")((1,), (1,), args)
    module.get_function("scalars")((1,), (1,), GOOD)


def test_refused_arrays(module: Module) -> None:
    add_one = module.get_function("add_one")
    x, n = np.zeros(4, np.float32), np.int32(4)
    with pytest.raises(EmulatorError, match=r"\(x\): the kernel's elements have 4 bytes"):
        add_one((1,), (4,), (np.zeros(4), x, n))
    with pytest.raises(EmulatorError, match=r"\(x\): an array is needed, got float32"):
        add_one((1,), (4,), (np.float32(1), x, n))
    x.flags.writeable = False
    with pytest.raises(EmulatorError, match=r"\(x\): the array is read-only"):
        add_one((1,), (4,), (x, x, n))
    with pytest.raises(EmulatorError, match="add_one takes 3 arguments, 2 are given"):
        add_one((1,), (4,), (x, x))


@pytest.mark.parametrize(
    ("grid", "block", "options", "text"),
    [
        ((0,), (1,), {}, "grid is"),
        ((1,), (1, 1, 1, 1), {}, "block is"),
        ((1,), (1025,), {}, "block is .* more than 1024 threads"),
        ((1,), (1,), {"policy": "sideways"}, "policy is 'sideways'"),
        ((1,), (1,), {"arithmetic": "none"}, "arithmetic is 'none'"),
        ((1,), (1,), {"shared_mem": 16}, "16 bytes of dynamic shared memory are asked for"),
    ],
)
def test_refused_launches(
    module: Module, grid: Any, block: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(EmulatorError, match=text):
        module.get_function("scalars")(grid, block, GOOD, **options)
