"""The emulator's "hopper" rounding against products that an H200 computed (h200_products.txt)."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.conftest import needs_compiler
from tests.emulator import Module
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.test_tensor_arithmetic import multiply

TABLE = Path(__file__).with_name("h200_products.txt")
TYPES = {"bf16": ("mma_bf16", ml_dtypes.bfloat16), "fp16": ("mma_f16", np.float16)}
COLUMNS = 8  # of an instruction's result, each the product of another row of the table


def measured(type_: str) -> tuple[np.ndarray, ...]:
    """Return the rows of a type: c and d, float32, and a and b, (rows, 16)."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split()[1:] for line in lines if line.startswith(type_)]
    c, d, a, b = (
        np.array([list(bytes.fromhex(bits)) for bits in one], np.uint8)
        for one in zip(*rows, strict=True)
    )
    dtype = np.dtype(TYPES[type_][1])
    sums = (one.view(">u4").astype(np.uint32).view(np.float32)[:, 0] for one in (c, d))
    return (*sums, *(one.view(">u2").astype(np.uint16).view(dtype) for one in (a, b)))


def computed(type_: str, arithmetic: str) -> np.ndarray:
    """Return what the emulator makes of the rows of a type, by mma.sync."""
    module, name = Module(FOLDER / "fragments.cu"), TYPES[type_][0]
    c, _, a, b = measured(type_)
    found = []
    for first in range(0, len(c), COLUMNS):
        rows = slice(first, first + COLUMNS)
        left, sums = np.zeros((16, 16)), np.zeros((16, COLUMNS))
        left[:COLUMNS], sums[:COLUMNS] = a[rows], np.diag(c[rows])
        product = multiply(module, name, left, b[rows].astype(float), sums, arithmetic)
        found.append(np.diag(product[:COLUMNS]))
    return np.concatenate(found)


def expect_measured(type_: str) -> None:
    np.testing.assert_array_equal(computed(type_, "hopper"), measured(type_)[1])


@pytest.mark.parametrize("type_", TYPES)
def test_measured_products(type_: str) -> None:
    needs_compiler()
    expect_measured(type_)


@pytest.mark.parametrize("arithmetic", ["exact", "ampere"])
@pytest.mark.parametrize("type_", TYPES)
def test_other_rounding_differs(type_: str, arithmetic: str) -> None:
    needs_compiler()
    assert (computed(type_, arithmetic) != measured(type_)[1]).any()


def test_table() -> None:
    for type_ in TYPES:
        assert [len(one) for one in measured(type_)] == [200] * 4
