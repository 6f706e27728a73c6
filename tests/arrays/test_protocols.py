"""Arrays of types that gpugrad does not know, by the protocols that show their memory."""

import array
import ctypes
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gpugrad
from gpugrad.arrays import kinds, protocols
from gpugrad.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradcheckError,
    ShapeError,
)
from tests import driver
from tests.conftest import ON_A_GPU
from tests.support.cases import LAYOUTS, WRITABLE_LAYOUTS, Layer, layer_arrays
from tests.support.operations import OPERATIONS, same_bits

LAYER = Layer((5, 4), 3, 7)
CPU, CUDA, CUDA_HOST, METAL = 1, 2, 3, 8


# ---- stand-ins: each shows the memory of a NumPy array in its own way


class Interface:
    """An array that has nothing but NumPy's interface."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__


class Exporter:
    """An array that has nothing but DLPack."""

    device_type: Any = CPU

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    def __dlpack__(self, **options: Any) -> Any:
        return self.memory.__dlpack__(**options | {"dl_device": (CPU, 0)})

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self.device_type, 0


class OldExporter(Exporter):
    """One of the days before DLPack 1.0."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return self.memory.__dlpack__()


class CopyingExporter(Exporter):
    """One that gives copies away."""

    def __dlpack__(self, **options: Any) -> Any:
        return self.memory.__dlpack__(**options | {"copy": True})


class Pinned(Exporter):
    """One in host memory that CUDA has pinned."""

    device_type = CUDA_HOST

    def __dlpack__(self, **options: Any) -> Any:
        return super().__dlpack__(**options | {"dl_device": None})


class Both(OldExporter, Interface):
    """An array with NumPy's interface and an old DLPack."""


def namespace(*names: str) -> Any:
    """A namespace of the array API standard, as far as `names` go."""
    made: Any = ModuleType("space")

    def from_dlpack(given: Any) -> Any:
        return ApiArray(np.from_dlpack(given), made)

    def asarray(given: Any) -> Any:
        return ApiArray(np.array(given), made)

    for function in (from_dlpack, asarray):
        if function.__name__ in names:
            setattr(made, function.__name__, function)
    return made


SPACE = namespace("from_dlpack", "asarray")


class ApiArray(Exporter):
    """An array of the array API standard."""

    def __init__(self, memory: np.ndarray, space: Any = SPACE, device: str = "here") -> None:
        super().__init__(memory)
        self.space, self.device, self.dtype = space, device, memory.dtype

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return self.space

    def to_device(self, device: str) -> "ApiArray":
        return ApiArray(self.memory, self.space, device)


SHOWN = (Interface, Exporter, OldExporter, CopyingExporter, Pinned, Both)


def values(shown: Any) -> Any:
    """The NumPy array behind a stand-in, or in its place."""
    return getattr(shown, "memory", shown)


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


# ---- in host memory


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", SHOWN)
def test_what_shows_its_memory_is_read_as_numpy_arrays_are(kind, name, dtype):
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, dtype)
    operands = [arrays[one] for one in operation.operands]
    expected = as_tuple(operation.function(*operands))
    results = as_tuple(operation.function(*map(kind, operands)))
    for result, one in zip(results, expected, strict=True):
        assert type(result) is np.ndarray
        assert same_bits(result, one)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_array_apis_get_arrays_of_their_own(name, dtype):
    """New ones, and those that the caller gave."""
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, dtype)
    operands = [arrays[one] for one in operation.operands]
    expected = as_tuple(operation.function(*operands))
    given = [ApiArray(one) for one in operands]
    results = as_tuple(operation.function(*given))
    buffers = [ApiArray(np.full_like(one, 7)) for one in expected]
    out = tuple(buffers) if len(buffers) > 1 else buffers[0]
    written = as_tuple(operation.function(*given, out=out))
    for result, buffer, same, one in zip(results, buffers, written, expected, strict=True):
        assert type(result) is ApiArray
        assert result.space is SPACE
        assert same_bits(result.memory, one)
        assert same is buffer
        assert same_bits(buffer.memory, one)


@pytest.mark.parametrize("kind", [*SHOWN, ApiArray])
def test_nothing_is_copied(kind):
    memory = np.ones((3, 4))
    value = kind(memory)
    seen = kinds.view(value, kinds.kind_of(value))
    assert np.shares_memory(seen.array, memory) == (kind is not CopyingExporter)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1)])
@pytest.mark.parametrize("kind", [*SHOWN, ApiArray])
def test_arrays_of_any_shape(kind, shape):
    z = np.full(shape, 0.5, np.float32)
    assert same_bits(values(gpugrad.sigmoid(kind(z))), gpugrad.sigmoid(z))
    if shape:
        assert same_bits(values(gpugrad.bias_backward(kind(z))), gpugrad.bias_backward(z))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [Interface, Exporter, ApiArray])
def test_strides_and_alignment(kind, layout):
    arrays = {
        one: LAYOUTS[layout](array)
        for one, array in layer_arrays(Layer((4, 5), 3, 6), "float32").items()
    }
    expected = gpugrad.dense_sigmoid_backward(*(arrays[one] for one in ("dy", "y", "x", "w")))
    given = [kind(arrays[one]) for one in ("dy", "y", "x", "w")]
    for ours, theirs in zip(gpugrad.dense_sigmoid_backward(*given), expected, strict=True):
        assert same_bits(values(ours), theirs)


@pytest.mark.parametrize("layout", WRITABLE_LAYOUTS)
@pytest.mark.parametrize("kind", [Interface, Exporter, Pinned, ApiArray])
def test_buffers_are_written_and_handed_back(kind, layout):
    z = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    memory = LAYOUTS[layout](np.zeros_like(z))
    out = kind(memory)
    given = ApiArray(z) if kind is ApiArray else z
    assert gpugrad.sigmoid(given, out=out) is out
    assert same_bits(np.ascontiguousarray(memory), gpugrad.sigmoid(z))


def test_buffers_are_added_to():
    dy = np.ones((4, 3))
    db = Interface(np.full(3, 10.0))
    assert gpugrad.bias_backward(dy, out=db, accumulate=True) is db
    assert db.memory.tolist() == [14, 14, 14]


@pytest.mark.parametrize("make", [Interface, Exporter, Both, ApiArray])
def test_read_only_buffers_are_refused(make):
    memory = np.zeros(3)
    memory.flags.writeable = False
    z = np.ones(3)
    with pytest.raises(ArgumentError, match=r"^sigmoid: out is read-only, expected an array that"):
        gpugrad.sigmoid(ApiArray(z) if make is ApiArray else z, out=make(memory))
    assert not memory.any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (OldExporter, "is exported by DLPack before"),
        (CopyingExporter, "is exported by DLPack as a copy"),
    ],
)
def test_buffers_that_may_not_be_the_callers_memory_are_refused(make, says):
    memory = np.zeros(3)
    with pytest.raises(ArgumentError, match=f"^sigmoid: out {says}"):
        gpugrad.sigmoid(np.ones(3), out=make(memory))
    assert not memory.any()


def test_an_old_dlpack_is_no_obstacle_beside_an_interface():
    out = Both(np.zeros(3))
    assert gpugrad.sigmoid(np.zeros(3), out=out) is out
    assert out.memory.tolist() == [0.5, 0.5, 0.5]


def test_overlaps_are_found_through_protocols():
    memory = np.ones(20)
    with pytest.raises(ArgumentError, match=r"^sigmoid: out shares memory with z"):
        gpugrad.sigmoid(Interface(memory[:10]), out=Exporter(memory[5:15]))
    assert (memory == 1).all()
    in_place = Exporter(memory)
    assert gpugrad.sigmoid(Interface(memory), out=in_place) is in_place
    assert (memory == gpugrad.sigmoid(np.ones(20))).all()


@pytest.mark.parametrize("kind", [*SHOWN, ApiArray])
def test_shapes_are_checked(kind):
    with pytest.raises(ShapeError, match=r"^sigmoid_backward: y has shape \(2,\), expected \(3,\)"):
        gpugrad.sigmoid_backward(kind(np.ones(3)), kind(np.ones(2)))


def test_plan_knows_them():
    for one in (Interface(np.ones(3)), ApiArray(np.ones(3))):
        assert gpugrad.plan("sigmoid", one, device="cpu").algorithm == "numpy"


# ---- mixed


def test_what_counts_as_numpy_mixes_with_numpy():
    dy, y = np.ones(3), np.full(3, 0.5)
    expected = gpugrad.sigmoid_backward(dy, y)
    for first, second in [(Interface, np.asarray), (np.asarray, Exporter), (Both, Pinned)]:
        result = gpugrad.sigmoid_backward(first(dy), second(y))
        assert type(result) is np.ndarray
        assert same_bits(result, expected)


def test_array_apis_do_not_mix():
    a, b = np.ones(3), ApiArray(np.ones(3))
    other = type("Other", (ApiArray,), {"__module__": "elsewhere.arrays"})(np.ones(3))
    for given, says in [
        ((a, b), "y is a tests ApiArray, expected a NumPy array because dy is one"),
        ((b, a), "y is a NumPy array, expected a tests ApiArray because dy is one"),
        ((b, Interface(a)), r"y is a NumPy array \(tests Interface\), expected a tests ApiArray"),
        ((other, b), "y is a tests ApiArray, expected an elsewhere Other because dy is one"),
    ]:
        with pytest.raises(DTypeError, match=f"^sigmoid_backward: {says}"):
            gpugrad.sigmoid_backward(*given)
    with pytest.raises(DTypeError, match=r"^sigmoid: out is a tests ApiArray, expected a NumPy"):
        gpugrad.sigmoid(a, out=ApiArray(np.zeros(3)))
    with pytest.raises(DTypeError, match=r"^sigmoid: out is a NumPy array, expected a tests ApiA"):
        gpugrad.sigmoid(b, out=np.zeros(3))


# ---- namespaces


def test_results_go_where_the_inputs_are():
    far = ApiArray(np.zeros(3), device="there")
    assert gpugrad.sigmoid(far).device == "there"
    with pytest.raises(DeviceError, match=r"^sigmoid_backward: y is on device here, expected ther"):
        gpugrad.sigmoid_backward(far, ApiArray(np.zeros(3)))
    with pytest.raises(DeviceError, match=r"^sigmoid: out is on device here, expected there"):
        gpugrad.sigmoid(far, out=ApiArray(np.zeros(3)))


def refuse(given: Any) -> Any:
    raise BufferError("not this one")


def test_namespaces_that_make_arrays_in_another_way():
    z = np.zeros(3)
    refusing = namespace("from_dlpack", "asarray")
    refusing.from_dlpack = refuse
    for space in (namespace("asarray"), namespace("from_dlpack"), refusing):
        result = gpugrad.sigmoid(ApiArray(z, space))
        assert type(result) is ApiArray
        assert result.space is space
        assert result.memory.tolist() == [0.5, 0.5, 0.5]
    refusing.asarray = refuse
    with pytest.raises(
        DTypeError,
        match=r"^sigmoid: the result cannot be converted to the inputs' kind "
        r"\(BufferError: not this one\)",
    ):
        gpugrad.sigmoid(ApiArray(z, refusing))


def test_namespaces_that_make_nothing_else_than_numpy():
    """Or nothing at all: the array counts as NumPy's."""
    z = np.zeros(3)
    for space in (namespace(), np):
        result = gpugrad.sigmoid_backward(ApiArray(z, space), z)
        assert type(result) is np.ndarray


# ---- what is refused


class Raising:
    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name == self.name:
            raise RuntimeError("not today")
        raise AttributeError(name)


@pytest.mark.parametrize("name", ["__cuda_array_interface__", "__dlpack__", "__array_interface__"])
def test_attributes_that_raise(name):
    says = r"z cannot be viewed as a plain array \(RuntimeError: not today\)"
    with pytest.raises(DTypeError, match=f"^sigmoid: {says}"):
        gpugrad.sigmoid(Raising(name))


class Answering:
    """An object that has every attribute, none of use."""

    def __getattr__(self, name: str) -> Any:
        return 7


class OnlyArray:
    """What becomes an array, perhaps by copying it from somewhere else."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.zeros(3)


def not_arrays() -> dict[str, Any]:
    half = Exporter(np.ones(3))
    half.__dict__["__dlpack_device__"] = None
    return {
        "Answering": Answering(),
        "OnlyArray": OnlyArray(),
        "bytearray": bytearray(24),
        "memoryview": memoryview(np.zeros(3)),
        "array": array.array("d", [0.0]),
        "c_double_Array_3": (ctypes.c_double * 3)(),
        "module": np,
        "SimpleNamespace": SimpleNamespace(__dlpack__=half.__dlpack__),
    }


@pytest.mark.parametrize("name", not_arrays())
def test_what_is_no_array_stays_none(name):
    assert kinds.kind_of(not_arrays()[name]) is None
    with pytest.raises(DTypeError, match=f"^sigmoid: z is a {name}, expected a NumPy, CuPy, PyTor"):
        gpugrad.sigmoid(not_arrays()[name])


@pytest.mark.parametrize("kind", [np.ndarray, np.float64, Interface, ApiArray, Exporter])
def test_classes_are_no_arrays(kind):
    with pytest.raises(DTypeError, match=r"^sigmoid: z is a type, expected"):
        gpugrad.sigmoid(kind)


def interface(**changes: Any) -> Any:
    memory = np.zeros(3)
    return SimpleNamespace(__array_interface__=memory.__array_interface__ | changes, memory=memory)


REFUSED: dict[str, tuple[Any, str]] = {
    "int64": (Interface(np.arange(3)), "has dtype int64, expected one of float64"),
    "complex": (Exporter(np.ones(3, complex)), "has dtype complex128, expected one of"),
    "bool": (ApiArray(np.ones(3, bool)), "has dtype bool, expected one of"),
    "records": (Interface(np.zeros(3, [("t", "f4")])), "has dtype"),
    "byte order": (Interface(np.ones(3, ">f8")), "has dtype >f8, expected native byte order"),
    "byte order, DLPack": (Exporter(np.ones(3, ">f8")), "cannot be viewed as a plain array"),
    "bfloat16": (Interface(np.ones(3, ml_dtypes.bfloat16)), r"has dtype \|V2, expected one of"),
    "bfloat16, API": (ApiArray(np.ones(3, ml_dtypes.bfloat16)), "is bfloat16, which NumPy and"),
    "masked": (interface(mask=np.zeros(3, bool)), "is a masked array, expected a plain one"),
    "no shape": (
        SimpleNamespace(__array_interface__={"version": 3}),
        r"cannot be viewed as a plain array \(ValueError",
    ),
    "no type": (interface(typestr="?!"), r"cannot be viewed as a plain array \(TypeError"),
    "no capsule": (
        SimpleNamespace(__dlpack__=lambda **_: 7, __dlpack_device__=lambda: (CPU, 0)),
        "cannot be viewed as a plain array",
    ),
    "no device": (
        SimpleNamespace(__dlpack__=lambda **_: 7, __dlpack_device__=lambda: "cpu"),
        r"cannot be viewed as a plain array \(ValueError",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arrays(name):
    bad, says = REFUSED[name]
    with pytest.raises(DTypeError, match=f"^sigmoid: z {says}"):
        gpugrad.sigmoid(bad)


@pytest.mark.parametrize(
    ("device", "says"),
    [(METAL, "Metal"), (10, "ROCm"), (14, "oneAPI"), (99, "number 99 of DLPack")],
)
@pytest.mark.parametrize("kind", [Exporter, ApiArray, Both])
def test_devices_that_are_neither_cpu_nor_cuda(kind, device, says):
    """They are rejected before memory is touched, also by another protocol."""
    far = kind(np.zeros(3))
    far.device_type = device
    with pytest.raises(
        DTypeError, match=f"^sigmoid: z is on device {says}, expected the CPU or a CUDA GPU"
    ):
        gpugrad.sigmoid(far)


@pytest.mark.parametrize(
    ("device", "expected"),
    [(CPU, "cpu"), (CUDA_HOST, "cpu"), (11, "cpu"), (CUDA, "gpu:0"), (13, "gpu:0")],
)
def test_devices_that_are_the_cpu_or_cuda(monkeypatch, device, expected):
    monkeypatch.setattr(protocols, "_cupy_with_a_gpu", lambda: None)
    value = Exporter(np.zeros(3))
    value.device_type = device
    kind = kinds.kind_of(value)
    assert kind == ("NumPy" if expected == "cpu" else "CuPy")
    assert kinds.device_of(value, kind) == expected


# ---- on a GPU


class CudaInterface:
    """An array that has nothing but CUDA's interface, like Numba's."""

    def __init__(self, memory: Any, **changes: Any) -> None:
        self.memory = memory
        self.__cuda_array_interface__ = memory.__cuda_array_interface__ | changes


class CudaExporter:
    """An array on a GPU that has nothing but DLPack."""

    def __init__(self, memory: Any) -> None:
        self.memory, self.place = memory, memory.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.place


class OldCudaExporter(CudaExporter):
    """One of the days before DLPack 1.0."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        return self.memory.__dlpack__(stream=stream)


class ReadOnlyCudaExporter(CudaExporter):
    """One whose memory must not be written."""

    def __dlpack__(self, **options: Any) -> Any:
        capsule = super().__dlpack__(**options)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        flags = pointer(capsule, b"dltensor_versioned") + protocols.FLAGS_OFFSET
        ctypes.c_uint64.from_address(flags).value |= protocols.READ_ONLY
        return capsule


class CudaApiArray(CudaExporter):
    """An array of the array API standard, on a GPU."""

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        import cupy

        return SimpleNamespace(from_dlpack=lambda given: CudaApiArray(cupy.from_dlpack(given)))


class Guarded(CudaInterface):
    """An array on a GPU that does not want to be taken for one on the host."""

    def __getattr__(self, name: str) -> Any:
        if name in ("__dlpack__", "__dlpack_device__", "__array_interface__"):
            raise RuntimeError("would be copied")
        raise AttributeError(name)


class GuardedExporter(CudaExporter):
    """The same, with DLPack."""

    @property
    def __array_interface__(self) -> Any:
        raise RuntimeError("would be copied")


ON_GPU = (CudaInterface, CudaExporter, Guarded, GuardedExporter)


@pytest.mark.parametrize("kind", ON_GPU)
def test_arrays_on_a_gpu_count_as_cupys(gpu, kind):
    import cupy

    dy, y = cupy.ones((4, 3), "f4"), cupy.full((4, 3), 0.5, "f4")
    assert kinds.kind_of(kind(dy)) == "CuPy"
    result = gpugrad.sigmoid_backward(kind(dy), kind(y))
    assert type(result) is cupy.ndarray
    assert (result.get() == 0.25).all()
    out = kind(cupy.zeros_like(dy))
    assert gpugrad.sigmoid_backward(kind(dy), CudaInterface(y), out=out) is out
    assert (out.memory.get() == 0.25).all()
    with pytest.raises(DTypeError, match=r"y is a NumPy array, expected a CuPy array because dy"):
        gpugrad.sigmoid_backward(kind(dy), y.get())
    with pytest.raises(
        DTypeError, match=rf"y is a CuPy array \(tests {kind.__name__}\), expected a NumPy array"
    ):
        gpugrad.sigmoid_backward(dy.get(), kind(y))


@pytest.mark.parametrize("shape", [(5, 7), (0, 3), ()])
@pytest.mark.parametrize("kind", ON_GPU)
def test_bits_of_arrays_on_a_gpu(gpu, kind, shape):
    import cupy

    y = cupy.asarray(np.linspace(0, 1, 35, dtype="f4")[: math.prod(shape)].reshape(shape))
    expected = gpugrad.sigmoid_backward(y, y).get()
    assert same_bits(gpugrad.sigmoid_backward(y, kind(y)).get(), expected)
    out = kind(cupy.zeros_like(y))
    assert gpugrad.sigmoid_backward(kind(y), y, out=out) is out
    assert same_bits(out.memory.get(), expected)


def test_array_apis_on_a_gpu(gpu):
    import cupy

    result = gpugrad.sigmoid(CudaApiArray(cupy.zeros(3, "f4")))
    assert type(result) is CudaApiArray
    assert result.memory.get().tolist() == [0.5, 0.5, 0.5]


def test_buffers_on_a_gpu_that_cannot_be_written(gpu):
    import cupy

    z, memory = CudaInterface(cupy.zeros(3, "f4")), cupy.ones(3, "f4")
    for out, says in [
        (CudaInterface(memory, data=(memory.data.ptr, True)), "is read-only"),
        (ReadOnlyCudaExporter(memory), "is read-only"),
        (OldCudaExporter(memory), "is exported by DLPack before 1.0"),
    ]:
        with pytest.raises(ArgumentError, match=f"^sigmoid: out {says}"):
            gpugrad.sigmoid(z, out=out)
    assert (memory.get() == 1).all()


@pytest.fixture
def second_gpu(gpu):
    """A device that is not the current one."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs a GPU beside the first")
    return cupy.cuda.Device(1)


@pytest.mark.parametrize("kind", ON_GPU)
def test_arrays_on_different_gpus(second_gpu, kind):
    import cupy

    first = CudaInterface(cupy.zeros(3, "f4"))
    with second_gpu:
        second = kind(cupy.zeros(3, "f4"))
    with pytest.raises(
        DeviceError, match=r"^sigmoid_backward: y is on device gpu:1, expected gpu:0 because"
    ):
        gpugrad.sigmoid_backward(first, second)


@pytest.mark.parametrize("kind", ON_GPU)
def test_arrays_on_another_gpu_are_computed_there(second_gpu, kind):
    import cupy

    with second_gpu:
        z, out = kind(cupy.zeros(3, "f4")), kind(cupy.zeros(3, "f4"))
    assert gpugrad.sigmoid(z).device == second_gpu
    gpugrad.sigmoid(z, out=out)
    assert out.memory.get().tolist() == [0.5] * 3


def test_bad_arrays_on_a_gpu(gpu):
    import cupy

    memory = cupy.zeros(3, "f4")
    with pytest.raises(DTypeError, match=r"^sigmoid: z is a masked array, expected a plain one"):
        gpugrad.sigmoid(CudaInterface(memory, mask=CudaInterface(memory)))
    with pytest.raises(DTypeError, match=r"^sigmoid: z has dtype int32, expected one of"):
        gpugrad.sigmoid(CudaInterface(memory.astype("i4")))
    with pytest.raises(DTypeError, match=r"^sigmoid: z cannot be viewed as a plain array \(KeyE"):
        gpugrad.sigmoid(SimpleNamespace(__cuda_array_interface__={}))
    with pytest.raises(DeviceError, match=r"device is 'cpu', but z are on gpu:0"):
        gpugrad.sigmoid(CudaInterface(memory), device="cpu")


@pytest.fixture
def arrays_on_gpu(gpu):
    import cupy

    return [kind(cupy.zeros(3)) for kind in (*ON_GPU, CudaApiArray)]


@pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played, and goes away")
def test_a_gpu_that_cannot_be_used(arrays_on_gpu):
    driver.set_devices(0)
    try:
        for value in arrays_on_gpu:
            with pytest.raises(
                DeviceError,
                match=r"^sigmoid: z is on a GPU, but CuPy finds none \(cudaErrorNoDevice: ",
            ):
                gpugrad.sigmoid(value)
    finally:
        driver.set_devices()


def test_without_cupy(arrays_on_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for value in arrays_on_gpu:
        with pytest.raises(DeviceError, match=r"^sigmoid: z is on a GPU, which needs CuPy \(pip"):
            gpugrad.sigmoid(value)
    for kind in (*SHOWN, ApiArray):
        gpugrad.sigmoid(kind(np.zeros(3)))


def test_tensors_on_a_gpu_without_cupy(monkeypatch):
    """Played by an object that only has PyTorch's type."""

    class Tensor:
        device = SimpleNamespace(type="cuda", index=0)

        def get_device(self) -> int:
            return 0

        def is_neg(self) -> bool:
            return True

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"^sigmoid: z is on a GPU, which needs CuPy"):
        gpugrad.sigmoid(Tensor())


# ---- gradcheck


@pytest.mark.parametrize("make", [*SHOWN, ApiArray])
def test_gradcheck(make):
    expect_gradients(make, ApiArray if make is ApiArray else np.ndarray, np.asarray)


@pytest.mark.parametrize("make", [*ON_GPU, CudaApiArray])
def test_gradcheck_on_a_gpu(gpu, make):
    import cupy

    expect_gradients(make, make if make is CudaApiArray else cupy.ndarray, cupy.asarray)


def expect_gradients(make: Any, given: Any, array: Any) -> None:
    """The function gets arrays of the kind, on the inputs' device; the gradient the inputs."""
    seen = []

    def f(x: Any, z: Any) -> Any:
        seen.extend([type(x), type(z)])
        return values(x) * values(z)

    def vjp(u: Any, x: Any, z: Any) -> Any:
        assert type(u) is given
        assert type(x) is type(z) is make
        return values(u) * values(z), values(u) * values(x)

    x, z = (array(np.linspace(-1, 2, 6).reshape(2, 3) + shift) for shift in (0, 1))
    gpugrad.gradcheck(f, vjp, [make(x), make(z)])
    assert set(seen) == {given}
    with pytest.raises(GradcheckError):
        gpugrad.gradcheck(f, lambda u, x, z: (values(u), values(u)), [make(x), make(z)])


def test_gradcheck_keeps_the_device():
    far = ApiArray(np.linspace(-1, 1, 3), device="there")
    devices = []

    def f(z: Any) -> Any:
        devices.append(z.device)
        return gpugrad.sigmoid(z)

    gpugrad.gradcheck(f, lambda u, z: gpugrad.sigmoid_backward(u, gpugrad.sigmoid(z)), [far])
    assert set(devices) == {"there"}


def test_gradcheck_names_what_it_cannot_take():
    far = Exporter(np.zeros(3))
    far.device_type = METAL
    for inputs, says in [
        (
            [Interface(np.zeros(3, np.float32))],
            r"inputs\[0\] has dtype float32, expected a float64",
        ),
        ([np.zeros(3), far], r"inputs\[1\] is on device Metal, expected the CPU"),
        ([Raising("__dlpack__")], r"inputs\[0\] cannot be viewed as a plain array \(RuntimeError"),
        (ApiArray(np.zeros(3)), "inputs is an array, expected a sequence"),
        (far, "inputs is an array, expected a sequence"),
        ([OnlyArray()], r"inputs\[0\] is a OnlyArray, expected a float64 array"),
    ]:
        with pytest.raises(DTypeError, match=f"^gradcheck: {says}"):
            gpugrad.gradcheck(lambda *z: z, lambda u, *z: u, inputs)
    with pytest.raises(
        DTypeError, match=r"result is no array of real numbers \(is on device Metal"
    ):
        gpugrad.gradcheck(lambda z: far, lambda u, z: u, [np.zeros(3)])
