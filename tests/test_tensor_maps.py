"""Tensor maps: what the driver is told of an array, and what becomes of its answer."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from gpugrad.errors import DeviceError
from gpugrad.gpu import tensor_maps
from gpugrad.gpu.compiler import missing
from gpugrad.gpu.plane_operands import operand
from gpugrad.gpu.runtime import Encoded
from gpugrad.gpu.tensor_maps import TensorMap
from gpugrad.gpu.wgmma import box
from tests import emulator
from tests.emulator_runtime import EmulatorRuntime


def strided(shape, strides, itemsize=2):
    array = np.zeros(4096, np.uint16)
    return np.lib.stride_tricks.as_strided(array, shape, strides)


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((3, 5, 7), (80, 16, 2), ((7, 5, 3), (16, 80))),
        ((1, 5, 7), (2, 16, 2), ((7, 5, 1), (16, 80))),  # one plane: any stride
        ((1, 1, 7), (0, 0, 2), ((7, 1, 1), (16, 16))),
        ((2, 1, 9), (64, 6, 2), ((9, 1, 2), (32, 64))),
        ((5, 8), (48, 2), ((8, 5), (48,))),
    ],
)
def test_layout(shape, strides, expected):
    assert tensor_maps.layout(strided(shape, strides)) == expected


class Driver:
    """Takes the place of cuTensorMapEncodeTiled, and keeps what it was told."""

    def __init__(self, status):
        self.status, self.told, self.calls = status, None, 0

    def __call__(self, *told):
        self.told = told
        self.calls += 1
        return self.status, SimpleNamespace(opaque=[17 * i for i in range(16)])


@pytest.fixture
def driver(monkeypatch):
    """The bindings with another function behind one name; they import without a driver."""
    if missing():
        pytest.skip("needs cuda.bindings")
    from cuda.bindings import driver

    double = Driver(driver.CUresult.CUDA_SUCCESS)
    monkeypatch.setattr(driver, "cuTensorMapEncodeTiled", double)
    tensor_maps.encode.cache_clear()
    yield double
    tensor_maps.encode.cache_clear()


def test_the_driver_is_told_of_an_array(driver):
    from cuda.bindings import driver as names

    array = strided((3, 5, 7), (80, 16, 2))
    value = TensorMap(array, (3, 4, 64), 128).by_value()
    assert value.shape == (1,)
    assert value.nbytes == 128
    assert value["opaque"][0].tolist() == [17 * i for i in range(16)]
    dtype, rank, where, extents, strides, boxes, steps, interleave, swizzle, _, fill = driver.told
    assert dtype == names.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT16
    assert (rank, where) == (3, array.ctypes.data)
    told = [[int(one) for one in each] for each in (extents, strides, boxes, steps)]
    assert told == [[7, 5, 3], [16, 80], [64, 4, 3], [1, 1, 1]]
    assert interleave == names.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE
    assert swizzle == names.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B
    assert fill == names.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE
    TensorMap(array, (1, 128, 32), 64).by_value()
    assert driver.told[8] == names.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_64B


def test_an_address_is_encoded_once_and_the_array_is_not_held(driver):
    array = strided((3, 5, 7), (80, 16, 2))
    one = TensorMap(array, (3, 4, 64), 128)
    assert isinstance(one, Encoded)
    encode, seen = one.encode, weakref.ref(array.base)
    assert encode(4096) == encode(4096) == one.by_value().tobytes()
    assert driver.calls == 2  # at two addresses
    encode(8192)
    assert (driver.calls, driver.told[2]) == (3, 8192)
    del array, one
    gc.collect()
    assert seen() is None


def test_what_the_driver_refuses_is_an_error(driver):
    from cuda.bindings import driver as names

    driver.status = names.CUresult.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(
        DeviceError, match=r"gives CUDA_ERROR_INVALID_VALUE for extents \(7, 5, 3\)"
    ):
        TensorMap(strided((3, 5, 7), (80, 16, 2)), (3, 4, 64), 128).by_value()


def test_of_an_empty_array_the_map_is_blank(driver):
    value = TensorMap(np.zeros((3, 0, 8), np.uint16), (3, 4, 64), 128).by_value()
    assert driver.told is None
    assert not value["opaque"].any()


@pytest.mark.parametrize("order", ["C", "F", "overlapping", "broadcast", "reversed", "one row"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_operands_of_any_layout_have_maps_that_the_driver_takes(order, dtype):
    """Those that it would refuse are copied; the emulator's map refuses what the driver does."""
    matrix = np.arange(96 * 40, dtype=dtype).reshape(96, 40)
    matrix = {
        "C": lambda: matrix,
        "F": lambda: np.asfortranarray(matrix),
        "overlapping": lambda: np.lib.stride_tricks.sliding_window_view(matrix.ravel(), 40)[::8],
        "broadcast": lambda: np.broadcast_to(matrix[:1], (96, 40)),
        "reversed": lambda: matrix[::-1],
        "one row": lambda: matrix[3:4, 1:],
    }[order]()
    planes = 2 if dtype == "float32" else 1
    found = operand(EmulatorRuntime(), matrix, planes)
    array = found.planes.array
    extents, strides = tensor_maps.layout(array)
    assert all(stride % 16 == 0 and 0 < stride < 2**40 for stride in strides)
    inner = extents[0] * 2
    for extent, stride in zip(extents[1:], strides, strict=True):
        assert stride >= inner
        inner = stride * extent
    for parts in (1, 2):
        emulator.TensorMap(array, *box(found, 128, parts))


def test_maps_are_encoded_in_a_context(driver, monkeypatch):
    """Of a thread's first launch CuPy makes it current too late."""
    import cupy

    from gpugrad.gpu.cupy_runtime import WithMaps

    order = []
    maps = strided((3, 5, 7), (80, 16, 2)), (3, 4, 64)
    monkeypatch.setattr(cupy.cuda.driver, "ctxGetCurrent", lambda: "context" in order)
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: order.append("context"))
    launch = WithMaps(lambda grid, block, args, *, shared_mem: order.append(driver.calls))
    for swizzle in (128, 64):
        order.append(driver.calls)
        launch((1,), (384,), (TensorMap(*maps, swizzle), 3), shared_mem=0)
    assert order == [0, "context", 1, 1, 2]
