"""Errors of products against float64: each precision class on data of every kind.

Long sums are computed by a NumPy model of the kernels' arithmetic, which is compared with the
emulated kernels bit by bit. On a GPU the kernels themselves are measured.
"""

import contextlib
import functools
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
import pytest

import gpugrad
from gpugrad import dispatch
from gpugrad.planning.choice import EXACT_TERMS, RECOVERED_TERMS
from gpugrad.planning.configurations import WGMMA
from gpugrad.testing.algorithms import products_by
from gpugrad.testing.product_data import FAMILIES, draw
from gpugrad.testing.product_errors import (
    PLANES,
    ROUNDOFF,
    ProductErrors,
    exact,
    lost_in_norm,
)
from tests.accuracy import arithmetic, table
from tests.accuracy.arithmetic import (
    ALGORITHM,
    FUSED,
    MACHINES,
    by_multiply_adds,
    by_tensor_cores,
)
from tests.accuracy.table import TABLES, Row
from tests.conftest import BACKENDS, ON_A_GPU, needs_compiler
from tests.gpu.test_plane_products import has_tensor_cores, rates
from tests.support.cases import dtype_of
from tests.support.emulator_runtime import EmulatorRuntime
from tests.support.fused_layers import expect_gradients, fused_from, upstream

SHORT = (EXACT_TERMS, max(256, 2 * EXACT_TERMS))  # sums of every family, none shorter
RECOVERED = (RECOVERED_TERMS, 2 * RECOVERED_TERMS)  # the same in the fused kernel on Hopper
LONG = (("ordinary", 4096), ("positive", 4096), ("entries, 2^±30", 4096), ("entries of A", 10**5))
MODELS = tuple(MACHINES)
DEVICES = (*MODELS, "cupy") if ON_A_GPU and has_tensor_cores() else MODELS
ROWS = (
    *(Row(family, length) for family in FAMILIES for length in SHORT),
    *(Row(*one) for one in LONG),
)


@contextlib.contextmanager
def products_from(planes: int, machine: str = "", *, of_short_sums: bool = True) -> Iterator[None]:
    """Plan products from so many planes, or by FFMA for 0, whatever is faster.

    They are computed as on a machine, or else as on the GPU that there is.
    """
    algorithm = ALGORITHM.get(machine) or ("wgmma" if rates().warpgroup_16 else "mma")
    choice = (algorithm, planes) if planes else ("ffma", 0)
    exchanged = products_by(lambda _: choice)
    if not of_short_sums:
        del exchanged["EXACT_TERMS"]
    with mock.patch.multiple(import_module("gpugrad.planning.choice"), **exchanged):
        yield


# ---- what the classes promise


def on_a_gpu(planes: int) -> table.Product:
    """Compute left rightᵀ as dw, whose contraction is split."""
    backend = BACKENDS["cupy"]()

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        w = np.zeros((len(left), len(right)), np.float32)
        dy, x, w = (backend.array(one) for one in (right.T, left.T, w))
        with products_from(planes):
            return np.asarray(backend.numpy(gpugrad.matmul_backward(dy, x, w, wrt=("w",)).dw))

    return product


def layer_on_a_gpu(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute left rightᵀ as dw of a layer that uses the fused kernel."""
    backend = BACKENDS["cupy"]()
    w = np.zeros((len(left), len(right)), np.float32)
    arrays = (backend.array(one) for one in (*upstream(right.T), left.T, w))
    with fused_from(3):
        return np.asarray(backend.numpy(gpugrad.dense_sigmoid_backward(*arrays).dw))


@functools.cache
def errors(machine: str, planes: int, row: Row) -> ProductErrors:
    """By component and in norm; with no planes, of FFMA, which is the same in every model."""
    if machine == "cupy":
        product = on_a_gpu(planes)
    elif planes == 0 and machine != MODELS[0]:
        return errors(MODELS[0], planes, row)
    else:
        product = table.tensor_cores(planes, machine) if planes else table.multiply_adds
    return table.errors(problems(row), product)


@functools.cache
def problems(row: Row) -> list[table.Problem]:
    return table.problems(row)


@pytest.mark.parametrize("machine", DEVICES)
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] * (row.contraction > 64)) for row in ROWS],
    ids=lambda row: f"{row.family}-{row.contraction}",
)
class TestClasses:
    def test_highest_is_as_accurate_as_multiply_adds(self, row, machine):
        """By component, in the mean and where errors are largest."""
        ieee, ours = (errors(machine, planes, row) for planes in (0, PLANES["highest"]))
        assert ours.keep_promise(PLANES["highest"], ieee)

    @pytest.mark.parametrize("precision", ["high", "medium"])
    def test_high_and_medium_in_norm(self, row, machine, precision):
        """Beyond what planes lose, no more than FFMA loses."""
        ieee, ours = (errors(machine, planes, row) for planes in (0, PLANES[precision]))
        assert ours.keep_promise(PLANES[precision], ieee)


HOPPERS = tuple(
    one for one in DEVICES if one == "hopper" or (one == "cupy" and rates().warpgroup_16)
)


@pytest.mark.slow
@pytest.mark.parametrize("machine", HOPPERS)
@pytest.mark.parametrize("contraction", RECOVERED)
@pytest.mark.parametrize("family", FAMILIES)
def test_highest_of_fused_kernels_is_as_accurate_as_ffma(family, contraction, machine):
    row = Row(family, contraction)
    ours = table.errors(problems(row), fused_on(machine))
    assert ours.keep_promise(PLANES["highest"], errors(machine, 0, row))


@pytest.mark.parametrize("machine", DEVICES)
@pytest.mark.parametrize("contraction", [1, 16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_high_of_fused_kernels_in_norm(family, contraction, machine):
    """Beyond what two planes may lose, no more than FFMA."""
    row = Row(family, contraction)
    ours = table.errors(problems(row), fused_on(machine))
    assert ours.keep_promise(PLANES["high"], errors(machine, 0, row))


def fused_on(machine: str) -> table.Product:
    return layer_on_a_gpu if machine == "cupy" else table.fused_path(machine)


SHORTEST = [  # sums on tensor cores that "highest" takes, with 2^20 times as large a term as others
    ("hopper", FUSED, RECOVERED_TERMS),
    ("hopper", "wgmma", EXACT_TERMS),
    ("ampere", "mma", EXACT_TERMS),
]


def beside_a_large_term(
    family: str, way: tuple[str, str, int], *, last: bool
) -> tuple[ProductErrors, ProductErrors]:
    """Measure sums, and FFMA, with the large term last or anywhere in each row."""
    machine, algorithm, contraction = way
    given = []
    for seed in range(4):
        left, right = draw(family, 64, 64, contraction, seed)
        places = np.random.default_rng(seed).integers(0, contraction, 64)
        left[np.arange(64), contraction - 1 if last else places] *= np.float32(2**20)
        given.append(table.Problem(left, right, exact(left, right)))
    product = functools.partial(by_tensor_cores, planes=3, machine=machine, algorithm=algorithm)
    return table.errors(given, product), table.errors(given, by_multiply_adds)


@pytest.mark.parametrize("family", ["ordinary", "positive"])
@pytest.mark.parametrize("way", SHORTEST, ids=str)
def test_highest_beside_a_large_term_at_any_place(way, family):
    """Smaller terms are truncated, or rounded after it: no worse than by FFMA."""
    ours, ieee = beside_a_large_term(family, way, last=False)
    assert ours.keep_promise(PLANES["highest"], ieee)


@pytest.mark.parametrize("way", SHORTEST, ids=str)
def test_highest_beside_a_large_term_that_comes_last(way):
    """The limit as docs/numerics.md states it."""
    ours, ieee = (one.components for one in beside_a_large_term("positive", way, last=True))
    assert ieee.rms < 0.5
    assert 2.5 < ours.rms < 3


def test_bounds_of_high_and_medium():
    """In round figures 2⁻²¹ and 2⁻¹⁰, for every contraction."""
    for contraction in (1, 10**6):
        assert 2.0**-21 < lost_in_norm(2, contraction) < 1.51 * 2.0**-21
        assert 2.0**-10 < lost_in_norm(1, contraction) < 1.01 * 2.0**-10


# ---- the model and the kernels


@pytest.fixture(params=MODELS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Call the kernels on the emulator, whose tensor cores round as this machine's."""
    needs_compiler()
    runtime = EmulatorRuntime(arithmetic=request.param)
    monkeypatch.setattr(dispatch, "runtime", lambda: runtime)
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: None)
    return str(request.param)


def gradients(left: np.ndarray, right: np.ndarray) -> tuple[Any, Any]:
    """Compute left rightᵀ as dx, whose contraction is not split, and as dw, where it is."""
    other = np.zeros((len(left), len(right)), np.float32)
    dx = gpugrad.matmul_backward(left, other, right, wrt=("x",), device="gpu").dx
    dw = gpugrad.matmul_backward(right.T, left.T, other, wrt=("w",), device="gpu").dw
    return dx, dw


@pytest.mark.slow
@pytest.mark.parametrize("planes", [0, 3, 2, 1])
@pytest.mark.parametrize("family", ["ordinary", "entries", "cancelling", "subnormal", "huge"])
def test_the_model_computes_as_the_kernels_do(machine, family, planes):
    """Bit by bit, with one split and with two."""
    left, right = draw(family, 9, 11, 530, 0)
    length = table.split_length(left, right, planes, machine)
    assert 0 < length < 530
    with products_from(planes, machine):
        results = gradients(left, right)
    for result, split_length in zip(results, (0, length), strict=True):
        if planes:
            expected = by_tensor_cores(left, right, planes, machine, split_length)
        else:
            expected = by_multiply_adds(left, right, split_length)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [11, 100])
@pytest.mark.parametrize("family", ["ordinary", "entries", "cancelling", "subnormal", "huge"])
def test_the_model_computes_fused_as_the_kernel_does(machine, family, outputs):
    """Bit by bit, with one split and with several."""
    for rows in (40, 530):
        dz, w = draw(family, rows, 19, outputs, 0)
        x, _ = draw(family, rows, 1, 19, 1)
        expect_gradients(dz, x, w, machine)


@pytest.mark.parametrize("contraction", [1, 2, EXACT_TERMS - 1])
def test_highest_takes_multiply_adds_for_short_sums(machine, contraction):
    left, right = draw("ordinary", 9, 11, contraction, 0)
    with products_from(PLANES["highest"], machine, of_short_sums=False):
        for result in gradients(left, right):
            np.testing.assert_array_equal(result, by_multiply_adds(left, right))


@pytest.mark.parametrize("accumulate", [False, True])
def test_dw_of_few_rows_uses_ffma_besides_the_fused_kernel(machine, accumulate):
    """And dx of these rows has the bits that it has in a batch of more."""
    few, every = RECOVERED_TERMS - 1, ("x", "w", "b")
    dz, w = draw("ordinary", RECOVERED_TERMS, 19, 70, 0)
    x, _ = draw("ordinary", RECOVERED_TERMS, 1, 19, 1)

    def compute(rows: int, wrt: tuple[str, ...]) -> Any:
        shapes = {"x": (rows, 19), "w": (19, 70), "b": (70,)}
        out = tuple(np.ones(shapes[one], np.float32) if one in wrt else None for one in every)
        with fused_from(3, of_short_sums=False):
            return gpugrad.dense_sigmoid_backward(
                *(one[:rows] for one in (*upstream(dz), x)),
                w,
                wrt=wrt,
                out=out if accumulate else None,
                accumulate=accumulate,
                device="gpu",
            )

    found = compute(few, every)
    expected = by_multiply_adds(x[:few].T, dz[:few].T) + np.float32(accumulate)
    np.testing.assert_array_equal(found.dw, expected)
    np.testing.assert_array_equal(found.dx, compute(RECOVERED_TERMS, every).dx[:few])
    for wrt in ("w",), ("b",), ("w", "b"), ("x", "w"):
        for one, same in zip(compute(few, wrt), found, strict=True):
            assert one is None or np.array_equal(one, same)


def test_the_model_rounds_multiply_adds_once():
    """Also where float64 has no room for the sum, and the result is subnormal."""
    random = np.random.default_rng(0)
    numbers = 1 + random.integers(-2, 3, (3, 400)) * 2.0**-23
    numbers *= np.exp2([[0], [-24], [0]])  # near half a unit in the last place
    for power in (0, -126, -140):
        a, b, c = numbers * np.array([[2.0**power], [1], [2.0**power]])
        rounded = arithmetic._fused(a * b, c.astype(np.float32).astype(np.float64))
        for x, y, z, found in zip(a, b, c.astype(np.float32).astype(float), rounded, strict=True):
            sum_ = Fraction(x) * Fraction(y) + Fraction(z)
            near = [np.nextafter(np.float32(found), np.float32(to)) for to in (-np.inf, np.inf)]
            assert all(
                abs(sum_ - Fraction(float(found))) <= abs(sum_ - Fraction(float(one)))
                for one in near
            )


@pytest.mark.parametrize("planes", PLANES.values())
def test_powers_of_two_change_no_bit(machine, planes):
    """Of rows and columns: three planes need no exponents, fewer have them."""
    left, right = draw("ordinary", 9, 11, 40, 0)
    random = np.random.default_rng(1)
    of_rows, of_columns = random.integers(-40, 41, 9)[:, None], random.integers(-40, 41, 11)
    with products_from(planes, machine):
        expected = gradients(left, right)
        results = gradients(np.ldexp(left, of_rows), np.ldexp(right, of_columns[:, None]))
    for result, one in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, np.ldexp(one, of_rows + of_columns))


# ---- what is not finite


def not_finite(rows: int, columns: int, contraction: int) -> tuple[np.ndarray, np.ndarray]:
    """Infinities and NaNs in a third of the rows and columns, zeros where they meet."""
    left, right = draw("ordinary", rows, columns, contraction, 0)
    random = np.random.default_rng(2)
    for operand, other in ((left, right), (right, left)):
        for outer in range(0, len(operand), 3):
            where = random.integers(contraction)
            operand[outer, where] = random.choice([np.inf, -np.inf, np.nan], p=[0.45, 0.45, 0.1])
            other[random.integers(len(other)), where] = 0
    return left, right


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_long_sums_of_one_plane_lose(dtype):
    """Of one sign, on Hopper: 16 terms lose 2^-25 of the sum each, at most, and 2^-23 together.

    As sums grow evenly, half of that is of the last sum; nearly all of it is never lost.
    """
    rng = np.random.default_rng(0)
    left, right = (
        rng.random((16, WGMMA[1][0].PROMOTION_INTERVAL)).astype(dtype_of(dtype)) for _ in range(2)
    )
    held = [one.astype(np.float16) if dtype == "float32" else one for one in (left, right)]
    a, b = (one.astype(np.float64) for one in held)
    factors = (one.astype(np.float32) if dtype == "float32" else one for one in held)
    sums = by_tensor_cores(*factors, 1, "hopper").astype(np.float64)
    lost = 1 - sums / (a @ b.T)
    assert (
        0
        < lost.min()
        < lost.max()
        < WGMMA[1][0].PROMOTION_INTERVAL / 16 * (17 * 2.0**-25 + 2.0**-23) / 2
    )
    assert lost.max() < 2.0**-13.5


@pytest.mark.parametrize("planes", PLANES.values())
def test_what_is_not_finite_is_as_by_multiply_adds(machine, planes):
    """In dx, dw and the forward pass; nothing else is disturbed.

    Two sums of L terms differ by 3 (L + 16) roundings at most, as gpugrad.testing counts, and
    by what the planes lose.
    """
    contraction = 50
    left, right = not_finite(20, 23, contraction)
    norms = exact(*(np.where(np.isfinite(one), one, 0) for one in (left, right))).norms
    bound = (lost_in_norm(planes, contraction) + 3 * (contraction + 16) * ROUNDOFF) * norms
    bias = np.zeros(23, np.float32)
    results = []
    for count in (0, planes):
        with products_from(count, machine):
            y = gpugrad.dense_sigmoid(left, right.T, bias, device="gpu")
            results.append((*gradients(left, right), y))
    for expected, result in zip(*results, strict=True):
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(result[~finite], expected[~finite])
        assert (np.abs(result[finite] - expected[finite]) <= bound[finite]).all()
    finite = np.isfinite(results[0][0])
    assert finite.any()
    assert np.isnan(results[0][0]).any()
    assert np.isinf(results[0][0]).any()


@pytest.mark.parametrize("outputs", [23, 100])
def test_non_finite_values_of_fused_kernels_are_those_of_ffma(machine, outputs):
    """Sums of 2 (L + 16) roundings, against those of L, and what three planes leave out."""
    dz, w = not_finite(90, 20, outputs)
    x = not_finite(20, outputs, 90)[0].T
    results = []
    for planes in (0, 3):
        with fused_from(planes):
            results.append(gpugrad.dense_sigmoid_backward(*upstream(dz), x, w, device="gpu"))
    finite_of = [np.where(np.isfinite(one), one, 0) for one in (dz, w, x)]
    norms = exact(finite_of[0], finite_of[1]).norms, exact(finite_of[2].T, finite_of[0].T).norms
    for one, result, norm, terms in zip(*results, norms, (outputs, 90), strict=False):
        finite = np.isfinite(one)
        np.testing.assert_array_equal(result[~finite], one[~finite])
        bound = (lost_in_norm(3, terms) + 3 * (terms + 16) * ROUNDOFF) * norm
        assert (np.abs(result[finite] - one[finite]) <= bound[finite]).all()
        assert finite.any()
        assert np.isnan(one).any()
        assert np.isinf(one).any()


# ---- saturated sigmoids


@pytest.mark.slow
@pytest.mark.parametrize("planes", PLANES.values())
def test_gradients_of_saturated_sigmoids(machine, planes):
    """From y, dx and dw are the products of dy y (1 − y) as it is in float32."""
    random = np.random.default_rng(0)
    n, k, m = 40, 9, 24
    dy, x, w = (
        random.standard_normal(shape).astype(np.float32) for shape in ((n, m), (n, k), (k, m))
    )
    z = (40 * random.standard_normal((n, m))).astype(np.float32)
    y = gpugrad.sigmoid(z, device="cpu")
    dz = dy * (y * (1 - y))
    assert 0.2 < np.mean(dz == 0) < 0.8
    with products_from(planes, machine):
        dx, dw, _ = gpugrad.dense_sigmoid_backward(dy, y, x, w, device="gpu")
    np.testing.assert_array_equal(dx, by_tensor_cores(dz, w, planes, machine))
    np.testing.assert_array_equal(dw, by_tensor_cores(x.T, dz.T, planes, machine))


# ---- the table in docs/numerics.md


CHEAP = [
    pytest.param(one, row, id=f"{one.name}-{row.family}-{row.contraction}")
    for one in TABLES
    for row in one.rows
    if row.contraction <= 16
]


@pytest.mark.parametrize(("one", "row"), CHEAP)
def test_the_table_is_up_to_date(one, row):
    """As far as it is quickly computed; `python -m tests.accuracy --update` writes all of it."""
    lines = table.committed(table.PATH.read_text("utf-8"), one.name)
    assert lines[one.rows.index(row)] == table.whole_line(one, row)


@pytest.mark.parametrize("one", TABLES, ids=lambda one: one.name)
def test_the_table_has_every_row(one):
    text = table.PATH.read_text("utf-8")
    lines = table.committed(text, one.name)
    begins = [table.line((row.family, str(row.contraction)))[:-2] for row in one.rows]
    assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == begins
    assert not any(table.BROKEN in line for line in lines)
    assert table.replaced(text, one.name, table.render(one, lines)) == text


def test_the_data_are_described():
    text = table.PATH.read_text("utf-8")
    assert table.replaced(text, "data", table.render_families()) == text


def test_a_table_without_its_place_is_an_error():
    with pytest.raises(ValueError, match="no place for the table"):
        table.replaced("| data |", "float32", "")
