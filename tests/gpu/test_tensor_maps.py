"""Tensor maps: the layout passed to the driver, and its status."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpugrad
from gpugrad.errors import DeviceError
from gpugrad.gpu import tensor_maps
from gpugrad.gpu.plane_operands import operand
from gpugrad.planning.configurations import WGMMA
from tests import driver, emulator
from tests.conftest import ON_A_GPU
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.planes import TestProgram


def strided(shape, strides, itemsize=2):
    array = np.zeros(1 << 14, np.uint16)
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


def encode(array, box, swizzle, where=None):
    where = array.data.ptr if where is None else where
    return tensor_maps.encode(tensor_maps.layout(array), box, swizzle, where)


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played: a real one's maps are opaque")
def test_layout_passed_to_the_driver(encoder):
    array = device_array()
    value = encode(array, (3, 4, 64), 128)
    assert len(value) == tensor_maps.BYTES
    assert driver.TensorMapFields.read(value) == (
        *(array.data.ptr, (7, 5, 3), (16, 80), (64, 4, 3)),
        *(2, 128),
    )
    assert driver.TensorMapFields.read(encode(array, (1, 128, 32), 64)).swizzle == 64


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and counts calls")
def test_an_address_is_encoded_once(encoder):
    array = device_array()
    before, first = encodings(), array.data.ptr
    assert encode(array, (3, 4, 64), 128) == encode(array, (3, 4, 64), 128)
    assert encodings() == before + 1
    assert encode(array, (3, 4, 64), 128) != encode(array, (3, 4, 64), 128, first + 1024)
    assert encodings() == before + 2


def test_what_the_driver_refuses_is_an_error(encoder):
    array = device_array(strides=(80, 18, 2))
    with pytest.raises(DeviceError, match=r"returned error 1 for extents \(7, 5, 3\)"):
        encode(array, (3, 4, 64), 128)


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
    program = TestProgram(EmulatorRuntime())
    found = operand(program.launches, program.ref(matrix), planes)
    extents, strides = tensor_maps.layout(found.planes.array)
    assert all(stride % 16 == 0 and 0 < stride < 2**40 for stride in strides)
    inner = extents[0] * 2
    for extent, stride in zip(extents[1:], strides, strict=True):
        assert stride >= inner
        inner = stride * extent
    array = strided(found.planes.array.shape, (*strides[::-1], 2))
    for parts in (1, 2):
        emulator.TensorMap(array, *WGMMA[planes][0].box(128, parts, found.k_major))


def test_maps_are_encoded_in_a_context(encoder):
    """A thread's first launch makes it current before the maps among the parameters are encoded."""
    import cupy

    array = device_array()

    def in_a_thread(work):
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(work).result()

    with pytest.raises(DeviceError, match="returned error 201"):
        in_a_thread(lambda: encode(array, (3, 4, 64), 128))
    dy, x, w = (cupy.zeros(shape, "f2") for shape in ((256, 256), (256, 512), (512, 256)))
    before = encodings()
    in_a_thread(lambda: gpugrad.matmul_backward(dy, x, w))
    assert encodings() >= before + 4 or ON_A_GPU
