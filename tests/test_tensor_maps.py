"""Tensor maps: what the driver is told of an array, and what becomes of its answer."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpugrad.errors import DeviceError
from gpugrad.gpu import tensor_maps
from gpugrad.gpu.plane_operands import operand
from gpugrad.gpu.runtime import Encoded
from gpugrad.gpu.tensor_maps import TensorMap
from gpugrad.gpu.wgmma import box
from tests import driver, emulator
from tests.conftest import ON_A_GPU
from tests.driver.execution import TensorMapFields
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


def device_array(shape=(3, 5, 7), strides=(80, 16, 2)):
    import cupy

    memory = cupy.zeros(4096, np.uint16)
    return cupy.ndarray(shape, np.uint16, memory.data, strides)


def encodings():
    return driver.calls()["cuTensorMapEncodeTiled"]


@pytest.fixture
def encoder(gpu):
    """Maps that nobody has asked for before."""
    tensor_maps.encode.cache_clear()


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played: a real one's maps are opaque")
def test_the_driver_is_told_of_an_array(encoder):
    array = device_array()
    value = TensorMap(array, (3, 4, 64), 128).by_value()
    assert (value.shape, value.nbytes) == ((1,), 128)
    assert TensorMapFields.read(value.tobytes()) == (
        *(array.data.ptr, (7, 5, 3), (16, 80), (64, 4, 3)),
        *(2, 128),
    )
    other = TensorMap(array, (1, 128, 32), 64).by_value()
    assert TensorMapFields.read(other.tobytes()).swizzle == 64


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")
def test_an_address_is_encoded_once_and_the_array_is_not_held(encoder):
    array = device_array()
    one = TensorMap(array, (3, 4, 64), 128)
    assert isinstance(one, Encoded)
    assert one.size == len(one.by_value().tobytes()) == 128
    before = encodings()
    first = array.data.ptr
    assert one.encode(first) == one.encode(first) == one.by_value().tobytes()
    assert encodings() == before
    assert one.encode(first + 1024) != one.encode(first)
    assert encodings() == before + 1
    encode, seen = one.encode, weakref.ref(array)
    del array, one
    gc.collect()
    assert seen() is None
    assert len(encode(first)) == 128


def test_what_the_driver_refuses_is_an_error(encoder):
    array = device_array(strides=(80, 18, 2))
    with pytest.raises(DeviceError, match=r"gives error 1 for extents \(7, 5, 3\)"):
        TensorMap(array, (3, 4, 64), 128).by_value()


def test_of_an_empty_array_the_map_is_blank(encoder):
    before = encodings()
    value = TensorMap(np.zeros((3, 0, 8), np.uint16), (3, 4, 64), 128).by_value()
    assert encodings() == before
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


def test_maps_are_encoded_in_a_context(encoder):
    """Of a thread's first launch CuPy makes it current too late for the maps among the operands."""
    import cupy

    from gpugrad.gpu.cupy_runtime import WithMaps

    one = TensorMap(device_array(), (3, 4, 64), 128)

    def in_a_thread(work):
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(work).result()

    with pytest.raises(DeviceError, match="gives error 201"):
        in_a_thread(one.by_value)
    seen = []
    launch = WithMaps(lambda grid, block, args, *, shared_mem: seen.append(args[0]))
    in_a_thread(lambda: launch((1,), (384,), (one, 3), shared_mem=0))
    assert seen[0].nbytes == 128
    assert cupy.cuda.driver.ctxGetCurrent()
