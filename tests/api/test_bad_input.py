"""One table of odd and bad arguments for every function and backend.

Each call gives the right result or the right exception, which names the function and the argument,
and writes nothing before it.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, GpugradError, ShapeError
from tests.support.cases import Layer, dtype_of, layer_arrays
from tests.support.operations import OPERATIONS, compute, expect_right, same_bits

LAYER = Layer((4,), 3, 2)


class Row(np.ndarray):
    """A subclass of NumPy's array."""


class Odd(NamedTuple):
    """A way to spoil one operand."""

    make: Callable[[np.ndarray], Any]
    says: str = ""
    error: type[GpugradError] | None = DTypeError  # None: it is not spoilt


def each(odds: dict[str, Odd]) -> list[Any]:
    """List the names; CuPy has no masked arrays."""
    return [pytest.param(one, marks=[pytest.mark.host] * (one == "masked")) for one in odds]


def cast(dtype: Any, says: str = "") -> Odd:
    return Odd(lambda a: np.asarray(a).astype(dtype), says)


OPERANDS = {
    "a list": Odd(lambda a: a.tolist(), "is a list"),
    "a number": Odd(lambda a: 1.0, "is a float"),
    "a string": Odd(lambda a: "dy", "is a str"),
    "None": Odd(lambda a: None, "is None"),
    "bool": cast(bool, "has dtype bool, expected one of"),
    "int32": cast(np.int32, "has dtype int32, expected one of"),
    "uint8": cast(np.uint8, "has dtype uint8, expected one of"),
    "complex64": cast(np.complex64, "has dtype complex64, expected one of"),
    "object": cast(object),
    "longdouble": cast(np.longdouble),
    "float8": cast(ml_dtypes.float8_e4m3fn),
    "text": cast("U8"),
    "dates": Odd(lambda a: a.astype("i8").astype("M8[s]")),
    "records": Odd(lambda a: np.zeros(a.shape, [("t", "f4")])),
    "other byte order": Odd(lambda a: a.astype(a.dtype.newbyteorder())),
    "masked": Odd(np.ma.masked_array, "is a masked array"),
    "a subclass": Odd(lambda a: a.view(Row), error=None),
    "read-only": Odd(lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape), error=None),
    "negative strides": Odd(lambda a: a[::-1].copy()[::-1], error=None),
    "zero strides": Odd(lambda a: np.broadcast_to(a[:1], a.shape), error=None),
}
EACH_OPERAND = [
    (name, operand) for name, operation in OPERATIONS.items() for operand in operation.operands
]


def expect_error(
    backend: Any,
    name: str,
    arrays: dict[str, Any],
    error: type[GpugradError],
    says: str,
    **options: Any,
) -> None:
    """Assert the error, the start of its message, and that no array was written."""
    results = OPERATIONS[name].results
    if "out" not in options:
        options["out"] = {one: buffer_for(one) for one in results}
    watched = [*arrays.values(), *(options["out"] or {}).values()]
    watched = [one for one in watched if isinstance(one, np.ndarray) and one.dtype != object]
    before = [one.copy() for one in watched]
    with pytest.raises(error, match=f"^{name}: {says}") as caught:
        compute(backend, name, arrays, **options)
    assert type(caught.value) is error
    assert all(same_bits(a, b) for a, b in zip(watched, before, strict=True))


def buffer_for(result: str) -> np.ndarray:
    like = layer_arrays(LAYER, "float32")["y" if result == "y" else result[1:]]
    return np.full(like.shape, 7, np.float32)


@pytest.mark.parametrize("odd", each(OPERANDS))
@pytest.mark.parametrize(("name", "operand"), EACH_OPERAND)
def test_odd_operand(backend, name, operand, odd):
    arrays: dict[str, Any] = layer_arrays(LAYER, "float32")
    make, says, error = OPERANDS[odd]
    arrays[operand] = make(arrays[operand])
    if error is None or (odd, name, operand) == ("None", "dense_sigmoid", "b"):
        expect_right(backend, name, arrays)
    else:
        expect_error(backend, name, arrays, error, f"{operand} {says}")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "operand"), [one for one in EACH_OPERAND if len(OPERATIONS[one[0]].operands) > 1]
)
def test_mixed_dtypes(backend, name, operand, dtype):
    first, second, *_ = OPERATIONS[name].operands
    arrays = layer_arrays(LAYER, "float32")
    arrays[operand] = arrays[operand].astype(dtype_of(dtype))
    blamed = second if operand == first else operand
    says = f"{blamed} has dtype {arrays[blamed].dtype}, expected {arrays[first].dtype} because"
    expect_error(backend, name, arrays, DTypeError, says)


SHAPES = [
    ("bias_backward", "dy", (), "dy"),
    ("sigmoid_bias_backward", "dy", (), "dy"),
    ("sigmoid_bias_backward", "y", (4, 3), "y"),
    ("sigmoid_bias_backward", "y", (2,), "y"),
    ("sigmoid_backward", "y", (4, 1), "y"),
    ("sigmoid_backward", "y", (1, 4, 2), "y"),
    ("sigmoid_backward", "dy", (2, 4), "y"),
    ("sigmoid_backward", "y", (), "y"),
    *(
        (name, operand, shape, blamed)
        for name in ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid")
        for operand, shape, blamed in [
            ("x", (), "x"),
            ("x", (4, 5), "w"),
            ("x", (3, 4), "w"),
            ("w", (), "w"),
            ("w", (3,), "w"),
            ("w", (1, 3, 2), "w"),
            ("w", (2, 3), "w"),
            ("w", (0, 2), "w"),
        ]
    ),
    *(
        (name, operand, shape, blamed)
        for name in ("matmul_backward", "dense_sigmoid_backward")
        for operand, shape, blamed in [
            ("dy", (4, 3), "dy"),
            ("dy", (2, 4), "dy"),
            ("dy", (2,), "dy"),
            ("dy", (), "dy"),
            ("dy", (1, 4, 2), "dy"),
            ("dy", (0, 2), "dy"),
            ("x", (5, 3), "dy"),
            ("x", (3,), "dy"),
            ("w", (3, 1), "dy"),
        ]
    ),
    ("dense_sigmoid_backward", "y", (4, 1), "y"),
    ("dense_sigmoid_backward", "y", (1, 4, 2), "y"),
    ("dense_sigmoid", "b", (), "b"),
    ("dense_sigmoid", "b", (3,), "b"),
    ("dense_sigmoid", "b", (1, 2), "b"),
    ("dense_sigmoid", "b", (1,), "b"),
]


@pytest.mark.parametrize(("name", "operand", "shape", "blamed"), SHAPES)
def test_wrong_shape(backend, name, operand, shape, blamed):
    arrays = layer_arrays(LAYER, "float32")
    arrays[operand] = np.ones(shape, np.float32)
    text = re.escape(f"{arrays[blamed].shape}, expected")
    expect_error(backend, name, arrays, ShapeError, f"{blamed} has shape {text}")


@pytest.mark.parametrize("name", [one for one in OPERATIONS if OPERATIONS[one].takes_z])
def test_wrong_z(backend, name):
    arrays = layer_arrays(LAYER, "float32")
    cases: list[tuple[Any, type[GpugradError], str]] = [
        (arrays["z"].T.copy(), ShapeError, "z has shape"),
        (arrays["z"].astype(np.float64), DTypeError, "z has dtype float64"),
        (arrays["z"].tolist(), DTypeError, "z is a list"),
    ]
    if backend.device != "auto":  # beside CuPy's arrays it is one of another library
        cases.append((np.ma.masked_array(arrays["z"]), DTypeError, "z is a masked array"))
    for z, error, says in cases:
        expect_error(backend, name, arrays | {"z": z}, error, says, from_z=True)


BUFFERS: dict[str, Odd] = {
    "float64": Odd(lambda a: a.astype(np.float64), "has dtype float64, expected float32"),
    "float16": Odd(lambda a: a.astype(np.float16), "has dtype float16, expected float32"),
    "int32": Odd(lambda a: a.astype(np.int32), "has dtype int32"),
    "other byte order": Odd(lambda a: a.astype(a.dtype.newbyteorder())),
    "a list": Odd(lambda a: a.tolist(), "is a list"),
    "masked": Odd(np.ma.masked_array, "is a masked array"),
    "longer": Odd(lambda a: np.zeros((len(a) + 1, *a.shape[1:]), a.dtype), "", ShapeError),
    "another rank": Odd(lambda a: a[None], "", ShapeError),
    "one element": Odd(lambda a: a.ravel()[:1], "", ShapeError),
    "zero strides": Odd(
        lambda a: np.lib.stride_tricks.as_strided(a, a.shape, (0,) * a.ndim),
        "has elements that share memory",
        ArgumentError,
    ),
}
EACH_RESULT = [(name, result) for name in OPERATIONS for result in OPERATIONS[name].results]


@pytest.mark.parametrize("odd", each(BUFFERS))
@pytest.mark.parametrize(("name", "result"), EACH_RESULT)
def test_wrong_buffer(backend, name, result, odd):
    make, says, error = BUFFERS[odd]
    assert error is not None
    expect_error(
        backend,
        name,
        layer_arrays(LAYER, "float32"),
        error,
        f"{_label(name, result)} {says}",
        out={
            one: make(buffer_for(one)) if one == result else buffer_for(one)
            for one in OPERATIONS[name].results
        },
    )


def _label(name: str, result: str) -> str:
    return f"out's {result}" if len(OPERATIONS[name].results) > 1 else "out"


@pytest.mark.host
@pytest.mark.parametrize(("name", "result"), EACH_RESULT)
def test_read_only_buffer(backend, name, result):
    out = {one: buffer_for(one) for one in OPERATIONS[name].results}
    out[result].flags.writeable = False
    says = f"{_label(name, result)} is read-only"
    expect_error(backend, name, layer_arrays(LAYER, "float32"), ArgumentError, says, out=out)


@pytest.mark.parametrize(
    ("name", "result", "operand"),
    [
        (name, result, operand)
        for name, result in EACH_RESULT
        for operand in OPERATIONS[name].operands
    ],
)
def test_buffer_that_shares_memory_with_an_input(backend, name, result, operand):
    """One element in common, which no function can bear."""
    shape = buffer_for(result).shape
    arrays = layer_arrays(LAYER, "float32")
    size = arrays[operand].size
    memory = np.ones(size + math.prod(shape) - 1, np.float32)
    memory = backend.array(memory)
    arrays[operand] = memory[:size].reshape(arrays[operand].shape)
    out = {result: memory[size - 1 :].reshape(shape)}
    says = f"{_label(name, result)} shares memory with {operand}"
    with pytest.raises(ArgumentError, match=f"^{name}: {says}"):
        compute(backend, name, arrays, out=out)
    assert (backend.numpy(memory) == 1).all()


@pytest.mark.parametrize("name", [one for one in OPERATIONS if len(OPERATIONS[one].results) > 1])
def test_buffers_that_share_memory(backend, name):
    first, second, *_ = OPERATIONS[name].results
    memory = backend.array(np.ones(100, np.float32))
    out = {
        one: memory[: buffer_for(one).size].reshape(buffer_for(one).shape)
        for one in (first, second)
    }
    says = f"out's {second} shares memory with out's {first}"
    with pytest.raises(ArgumentError, match=f"^{name}: {says}"):
        compute(backend, name, layer_arrays(LAYER, "float32"), out=out)
    assert (backend.numpy(memory) == 1).all()


def test_dz_is_not_added_to_an_input(backend):
    """In place and accumulating at once would read what it has written."""
    arrays = {one: backend.array(a) for one, a in layer_arrays(LAYER, "float32").items()}
    before = backend.numpy(arrays["y"]).copy()
    with pytest.raises(
        ArgumentError, match=r"^sigmoid_bias_backward: out's dz shares memory with y"
    ):
        backend.call(
            gpugrad.sigmoid_bias_backward,
            arrays["dy"],
            arrays["y"],
            out=(arrays["y"], None),
            accumulate=True,
        )
    assert same_bits(backend.numpy(arrays["y"]), before)


OPTIONS: list[tuple[str, dict[str, Any], type[GpugradError], str]] = [
    ("all", {"device": "tpu"}, ArgumentError, "device is 'tpu', expected one of auto, cpu, gpu"),
    ("all", {"device": None}, ArgumentError, "device is None"),
    ("all", {"device": 0}, ArgumentError, "device is 0"),
    ("takes_precision", {"precision": "best"}, ArgumentError, "precision is 'best', expected one"),
    ("takes_precision", {"precision": None}, ArgumentError, "precision is None"),
    ("takes_precision", {"precision": np.ones(2)}, ArgumentError, "precision is array"),
    ("wrt", {"wrt": ("x", "y")}, ArgumentError, "wrt names 'y', expected some of x, w"),
    ("wrt", {"wrt": "dw"}, ArgumentError, "wrt names 'd', expected some of x, w"),
    ("wrt", {"wrt": (1, "x")}, ArgumentError, "wrt names 1"),
    ("wrt", {"wrt": None}, DTypeError, "wrt is None, expected"),
    ("wrt", {"wrt": 3}, DTypeError, "wrt is 3, expected"),
    ("wrt", {"wrt": [["x"]]}, DTypeError, r"wrt is \[\['x'\]\], expected"),
    ("wrt", {"wrt": ("x",)}, ArgumentError, "out has a buffer for dw, which wrt leaves out"),
    ("accumulates", {"accumulate": True, "out": None}, ArgumentError, "accumulate=True needs out"),
]


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        pytest.param(name, options, error, says, id=f"{name}-{options}")
        for takes, options, error, says in OPTIONS
        for name, operation in OPERATIONS.items()
        if takes == "all" or getattr(operation, takes)
    ],
)
def test_bad_option(backend, name, options, error, says):
    expect_error(backend, name, layer_arrays(LAYER, "float32"), error, says, **options)


@pytest.mark.parametrize("name", [one for one in OPERATIONS if len(OPERATIONS[one].results) > 1])
def test_out_that_is_no_tuple_of_the_right_length(backend, name):
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, "float32")
    operands = [backend.array(arrays[one]) for one in operation.operands]
    buffers = [backend.array(buffer_for(one)) for one in operation.results]
    for out, error, says in [
        (buffers[0], DTypeError, "out is a ndarray, expected a tuple"),
        ({}, DTypeError, "out is a dict, expected a tuple"),
        (buffers[:1], ArgumentError, f"out has 1 entries, expected {len(buffers)}"),
        ((*buffers, None), ArgumentError, f"out has {len(buffers) + 1} entries"),
        ((), ArgumentError, "out has 0 entries"),
    ]:
        with pytest.raises(error, match=f"^{name}: {says}"):
            backend.call(operation.function, *operands, out=out)
    assert all((backend.numpy(one) == 7).all() for one in buffers)


@pytest.mark.parametrize("name", OPERATIONS)
def test_mixed_kinds(name, gpu):
    """A CuPy array beside NumPy arrays."""
    import cupy

    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, "float32")
    operands: list[Any] = [arrays[one] for one in operation.operands]
    if len(operands) > 1:
        first, last = operation.operands[0], operation.operands[-1]
        operands[-1] = cupy.asarray(operands[-1])
        with pytest.raises(
            DTypeError,
            match=f"^{name}: {last} is a CuPy array, expected a NumPy array because {first} is one",
        ):
            operation.function(*operands)
        operands[-1] = arrays[last]
    buffers = [buffer_for(one) for one in operation.results]
    buffers[-1] = cupy.asarray(buffers[-1])
    label = _label(name, operation.results[-1])
    with pytest.raises(
        DTypeError, match=f"^{name}: {label} is a CuPy array, expected a NumPy array"
    ):
        operation.function(*operands, out=tuple(buffers) if len(buffers) > 1 else buffers[0])


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_gpu(name, monkeypatch):
    """An explicit choice is never overruled, from wherever it comes."""
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: "there is none (a test says so)")
    operation = OPERATIONS[name]
    arrays = layer_arrays(LAYER, "float32")
    operands = [arrays[one] for one in operation.operands]
    with pytest.raises(DeviceError, match=rf"^{name}: device is 'gpu', but there is none \(a test"):
        operation.function(*operands, device="gpu")
    monkeypatch.setenv("GPUGRAD_DEVICE", "gpu")
    with pytest.raises(DeviceError, match=f"^{name}: GPUGRAD_DEVICE is 'gpu', but there is none"):
        operation.function(*operands)
    operation.function(*operands, device="cpu")
    monkeypatch.setenv("GPUGRAD_DEVICE", "tpu")
    with pytest.raises(ArgumentError, match=f"^{name}: GPUGRAD_DEVICE is 'tpu', expected one of"):
        operation.function(*operands)
    monkeypatch.delenv("GPUGRAD_DEVICE")
    operation.function(*operands)
