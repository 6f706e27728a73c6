"""Rounding of tensor cores, against exact rational arithmetic."""

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import Module
from tests.emulator.subjects.cases import FOLDER, gemm_wgmma, tf32
from tests.emulator.test_layouts import INSTRUCTIONS, element_numbers

# extra bits; products added at once for 2-byte and for 4-byte operands
HARDWARE = {"hopper": (2, {2: 16, 4: 8}), "ampere": (1, {2: 8, 4: 4})}
MIN_EXPONENT = {"mma_f16": -14, "mma_bf16": -126, "mma_tf32": -126}


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FOLDER / "fragments.cu")


def multiply(
    module: Module, name: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, arithmetic: str
) -> np.ndarray:
    """One instruction: c + a bᵀ for a: (16, k), b: (8, k), c: (16, 8)."""
    instruction = INSTRUCTIONS[name]
    item = np.dtype(f"u{np.dtype(instruction.dtype).itemsize}")
    x = a.T.reshape(-1)[element_numbers(instruction.a)].astype(instruction.dtype).view(item)
    y = b.T.reshape(-1)[element_numbers(instruction.b)].astype(instruction.dtype).view(item)
    numbers = element_numbers(instruction.d)
    d = c.T.reshape(-1)[numbers].astype(np.float32)
    module.get_function(name)((1,), (32,), (x, y, d), arithmetic=arithmetic)
    result = np.empty(d.size, np.float32)
    result[numbers] = d
    return result.reshape(c.shape[::-1]).T


def exponent(value: Fraction, least: int) -> int:
    """Of the leading bit; at least that of normal numbers."""
    power = math.frexp(float(value))[1] - 1
    return max(power, least)


def cut(value: Fraction, unit: int) -> Fraction:
    """Towards zero, to a multiple of 2^unit."""
    return Fraction(math.trunc(value / Fraction(2) ** unit)) * Fraction(2) ** unit


def model(a: np.ndarray, b: np.ndarray, c: float, arithmetic: str, name: str) -> float:
    """Return one result, as the hardware is described to compute it."""
    extra, groups = HARDWARE[arithmetic]
    group = groups[np.dtype(INSTRUCTIONS[name].dtype).itemsize]
    least = MIN_EXPONENT[name]
    total = Fraction(float(c))
    for start in range(0, len(a), group):
        addends = [(total, exponent(total, -126))] if total else []
        for x, y in zip(a[start : start + group], b[start : start + group], strict=True):
            if x and y:
                x, y = Fraction(float(x)), Fraction(float(y))
                addends.append((x * y, exponent(x, least) + exponent(y, least)))
        unit = max((power for _, power in addends), default=0) - 23 - extra
        total = sum((cut(value, unit) for value, _ in addends), Fraction(0))
        if total:
            total = cut(total, max(math.frexp(float(total))[1] - 24, -149))
    return float(total)


def encode(name: str, x: np.ndarray) -> np.ndarray:
    """Return the float32 values that an operand holds."""
    if name == "mma_tf32":
        return tf32(x.astype(np.float32))
    return x.astype(INSTRUCTIONS[name].dtype).astype(np.float32)


SPREADS = {"equal": 0, "some": 4, "wide": 12}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("arithmetic", HARDWARE)
@pytest.mark.parametrize("name", MIN_EXPONENT)
def test_follows_the_model(module: Module, name: str, arithmetic: str, spread: str) -> None:
    rng = np.random.default_rng(len(name) + SPREADS[spread])
    _, _, k = INSTRUCTIONS[name].shape

    def numbers(*shape: int) -> np.ndarray:
        scale = 2.0 ** rng.uniform(-SPREADS[spread], SPREADS[spread], shape)
        return (rng.standard_normal(shape) * scale * (rng.random(shape) > 0.1)).astype(np.float32)

    a, b, c = encode(name, numbers(16, k)), encode(name, numbers(8, k)), numbers(16, 8)
    got = multiply(module, name, a, b, c, arithmetic)
    expected = [
        [model(a[i], b[j], float(c[i, j]), arithmetic, name) for j in range(8)] for i in range(16)
    ]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    assert (got != multiply(module, name, a, b, c, "exact")).any()


@pytest.mark.parametrize(
    ("small", "count", "hopper", "ampere", "exact"),
    [
        (2.0**-23, 1, 1 + 2.0**-23, 1 + 2.0**-23, 1 + 2.0**-23),
        (2.0**-24, 2, 1 + 2.0**-23, 1 + 2.0**-23, 1 + 2.0**-23),
        (2.0**-25, 4, 1 + 2.0**-23, 1.0, 1 + 2.0**-23),
        (2.0**-26, 15, 1.0, 1.0, 1 + 2.0**-22),
        (-(2.0**-25), 1, 1 - 2.0**-24, 1.0, 1.0),
        (2.0**-23 * 0.75, 1, 1.0, 1.0, 1 + 2.0**-23),
    ],
)
def test_small_addends(
    module: Module, small: float, count: int, hopper: float, ampere: float, exact: float
) -> None:
    a, b, c = np.zeros((16, 16)), np.zeros((8, 16)), np.ones((16, 8))
    a[:, :count], b[:, :count] = small, 1
    for arithmetic, expected in (("hopper", hopper), ("ampere", ampere), ("exact", exact)):
        assert set(multiply(module, "mma_bf16", a, b, c, arithmetic).flat) == {expected}


@pytest.mark.parametrize("arithmetic", ["exact", "hopper", "ampere"])
def test_special_values(module: Module, arithmetic: str) -> None:
    a, b, c = np.zeros((16, 16)), np.zeros((8, 16)), np.zeros((16, 8))
    a[0, 0], a[1, :2], a[2, 0], a[3, 0] = np.inf, (np.inf, -np.inf), np.nan, 2.0**-24
    b[:, :2] = 1
    got = multiply(module, "mma_f16", a, b, c, arithmetic)
    assert np.isposinf(got[0]).all()
    assert np.isnan(got[1:3]).all()
    assert set(got[3]) == {2.0**-24}  # a subnormal float16
    assert not got[4:].any()


def test_subnormal_results(module: Module) -> None:
    a, b, c = np.zeros((16, 16)), np.zeros((8, 16)), np.zeros((16, 8))
    a[:, 0], b[:, 0] = 2.0**-100 * 1.5, 2.0**-46 * 1.25  # 1.875 * 2^-146 = 15 * 2^-149
    for arithmetic in ("exact", "hopper"):
        assert set(multiply(module, "mma_bf16", a, b, c, arithmetic).flat) == {15 * 2.0**-149}


def test_long_sums_drift_downwards(module: Module) -> None:
    """Truncation loses what rounding keeps: the reason for promoting partial sums."""
    rng = np.random.default_rng(0)
    c: dict[str, Any] = {name: np.zeros((16, 8), np.float32) for name in ("exact", "hopper")}
    exact = np.zeros((16, 8))
    for _ in range(32):
        a, b = (rng.random(shape).astype(ml_dtypes.bfloat16) for shape in ((16, 16), (8, 16)))
        for arithmetic in c:
            c[arithmetic] = multiply(module, "mma_bf16", a, b, c[arithmetic], arithmetic)
        exact += a.astype(float) @ b.astype(float).T
    errors = {name: np.mean((c[name] - exact) / exact) for name in c}
    assert abs(errors["exact"]) < 2.0**-24
    assert errors["hopper"] < -(2.0**-23)


def test_wgmma_rounds_too() -> None:
    with pytest.raises(AssertionError):
        assert_same_results("hopper")
    assert_same_results("exact")


def assert_same_results(arithmetic: str) -> None:
    """Compare a product with itself, computed exactly."""
    module = Module(FOLDER / "gemm_wgmma.cu")
    results = [gemm_wgmma(module, arithmetic=name) for name in ("exact", arithmetic)]
    for exact, other in zip(*results, strict=True):
        np.testing.assert_array_equal(exact, other)
