"""Calls that hypothesis draws: shapes, layouts and dtypes that fit, or nearly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpugrad.errors import DTypeError, ShapeError
from tests.support.cases import DTYPES, LAYOUTS, WRITABLE_LAYOUTS, dtype_of, logistic, random_array
from tests.support.operations import OPERATIONS, compute, expect_right

EXTENTS = st.sampled_from([0, 1, 2, 3, 5, 8, 17, 33])
LEADS = st.lists(EXTENTS, max_size=2).map(tuple)
NAME = st.sampled_from(list(OPERATIONS))
PRECISION = st.sampled_from(["highest", "high", "medium", "ieee"])
EXAMPLES = {"numpy": 300, "emulator": 60, "cupy": 200}


def laid_out(array, layout):
    if layout == "C" or not array.ndim:
        return array
    return LAYOUTS[layout](array)


@st.composite
def operands(draw, backend):
    """All operands of a layer, of one dtype, each in its own layout."""
    lead, k, m = draw(LEADS), draw(EXTENTS), draw(EXTENTS)
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))
    shapes = {"x": (*lead, k), "w": (k, m), "b": (m,)}
    shapes |= dict.fromkeys(("dy", "y", "z"), (*lead, m))
    arrays = {
        name: random_array(shape, dtype, seed + index)
        for index, (name, shape) in enumerate(shapes.items())
    }
    arrays["y"] = logistic(arrays["y"])
    layout = st.sampled_from(["C", *backend.layouts])
    return {name: laid_out(array, draw(layout)) for name, array in arrays.items()}


@pytest.mark.slow
@pytest.mark.products
def test_right_results(backend):
    @settings(max_examples=EXAMPLES[backend.name.partition("-")[0]])
    @given(NAME, operands(backend), st.data())
    def check(name, arrays, data):
        operation = OPERATIONS[name]
        from_z = operation.takes_z and data.draw(st.booleans(), label="from z")
        accumulate = operation.accumulates and data.draw(st.booleans(), label="accumulate")
        options = {}
        if operation.takes_precision:
            options["precision"] = data.draw(PRECISION, label="precision")
        if operation.wrt:
            options["wrt"] = tuple(data.draw(st.sets(st.sampled_from(operation.wrt)), label="wrt"))
        out = {}
        for result in operation.results:
            left_out = operation.wrt and result[1:] not in options["wrt"]
            if left_out or not data.draw(st.booleans(), label=f"out has {result}"):
                continue
            like = arrays["y" if result == "y" else result[1:]]
            old = random_array(like.shape, like.dtype.name, 7)
            writable = [one for one in backend.layouts if one in WRITABLE_LAYOUTS]
            layout = data.draw(st.sampled_from(writable), label=f"layout of {result}")
            out[result] = laid_out(old, layout)
        options["accumulate"] = accumulate and bool(out)
        for _ in range(1 if backend.name.startswith("emulator") else 2):  # again, repeated
            expect_right(backend, name, arrays, from_z=from_z, out=out, **options)

    check()


@pytest.mark.slow
def test_nearly_fitting_operands(backend):
    """One operand of another shape or dtype: an error before anything is written, or a result."""

    @settings(max_examples=EXAMPLES[backend.name])
    @given(NAME, operands(backend), st.data())
    def check(name, arrays, data):
        operation = OPERATIONS[name]
        spoilt = data.draw(st.sampled_from(operation.operands), label="spoilt")
        shape = data.draw(st.lists(EXTENTS, max_size=3).map(tuple), label="shape")
        dtype = data.draw(st.sampled_from((*DTYPES, "int32", "complex64")), label="dtype")
        arrays[spoilt] = np.ones(shape, dtype_of(dtype))
        expected = expected_error(name, arrays)
        if expected is None:
            expect_right(backend, name, arrays)
            return
        with pytest.raises(expected, match=f"^{name}: "):
            compute(backend, name, arrays)

    check()


def expected_error(name, arrays):
    """The rules of the contract, said once more: dtypes first, then shapes."""
    given = {one: arrays[one] for one in OPERATIONS[name].operands}
    dtypes = {array.dtype.name for array in given.values()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        return DTypeError
    shape = {one: array.shape for one, array in given.items()}
    like_dy = all(shape[one] == shape["dy"] for one in ("y", "z") if one in shape and "dy" in shape)
    if "w" in shape:
        fits = len(shape["x"]) >= 1 and len(shape["w"]) == 2 and shape["x"][-1] == shape["w"][0]
        fits = fits and shape.get("b", shape["w"][1:]) == shape["w"][1:] and like_dy
        fits = fits and shape.get("dy", shape["x"][:-1] + shape["w"][1:])[:-1] == shape["x"][:-1]
        fits = fits and shape.get("dy", shape["w"])[-1:] == shape["w"][1:]
    elif name in ("bias_backward", "sigmoid_bias_backward"):
        fits = len(shape["dy"]) >= 1 and like_dy
    else:
        fits = like_dy
    return None if fits else ShapeError
