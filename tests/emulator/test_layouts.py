"""Fragments and shared-memory layouts of tensor cores, from statements that the runtime shares not.

A fragment layout is written as CuTe writes it, extents and strides of (thread, value) indices:
the element of thread t's value v is the sum of the digits of t and v times the strides.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import Module, uninitialised
from tests.emulator.subjects.cases import FOLDER

Layout = tuple[tuple[int, ...], tuple[int, ...]]  # extents, strides; the first varies fastest


def element_numbers(layout: Layout) -> np.ndarray:
    numbers = np.zeros(1, int)
    for extent, stride in zip(*layout, strict=True):
        numbers = (np.arange(extent)[:, None] * stride + numbers).reshape(-1)
    return numbers


@dataclass(frozen=True)
class Instruction:
    """d (m, n) += a (m, k) bᵀ (n, k); elements are numbered down the columns."""

    shape: tuple[int, int, int]
    dtype: Any
    a: Layout
    b: Layout
    d: Layout


ACCUMULATOR = ((4, 8, 2, 2), (32, 1, 16, 8))
INSTRUCTIONS = {
    "mma_tf32": Instruction(
        (16, 8, 8),
        np.float32,
        ((4, 8, 2, 2), (16, 1, 8, 64)),
        ((4, 8, 2), (8, 1, 32)),
        ACCUMULATOR,
    ),
    "mma_bf16": Instruction(
        (16, 8, 16),
        ml_dtypes.bfloat16,
        ((4, 8, 2, 2, 2), (32, 1, 16, 8, 128)),
        ((4, 8, 2, 2), (16, 1, 8, 64)),
        ACCUMULATOR,
    ),
    "mma_f16": Instruction(
        (16, 8, 16),
        np.float16,
        ((4, 8, 2, 2, 2), (32, 1, 16, 8, 128)),
        ((4, 8, 2, 2), (16, 1, 8, 64)),
        ACCUMULATOR,
    ),
    "mma_f64": Instruction(
        (8, 8, 4), np.float64, ((4, 8), (8, 1)), ((4, 8), (8, 1)), ((4, 8, 2), (16, 1, 8))
    ),
    "mma_f64_large": Instruction(
        (16, 8, 16),
        np.float64,
        ((4, 8, 2, 4), (16, 1, 8, 64)),
        ((4, 8, 4), (8, 1, 32)),
        ACCUMULATOR,
    ),
}


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FOLDER / "fragments.cu")


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_mma_fragments(module: Module, name: str) -> None:
    instruction = INSTRUCTIONS[name]
    m, n, k = instruction.shape
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-8, 9, shape) for shape in ((m, k), (n, k), (m, n)))
    item = np.dtype(f"u{np.dtype(instruction.dtype).itemsize}")
    encoded = [
        matrix.T.reshape(-1)[element_numbers(layout)].astype(instruction.dtype).view(item)
        for matrix, layout in ((a, instruction.a), (b, instruction.b))
    ]
    numbers = element_numbers(instruction.d)
    double = instruction.dtype == np.float64
    d = c.T.reshape(-1)[numbers].astype(np.float64 if double else np.float32)
    if double:
        encoded = [operand.view(np.float64) for operand in encoded]
    module.get_function(name)((1,), (32,), (*encoded, d))
    np.testing.assert_array_equal(d, (a @ b.T + c).T.reshape(-1)[numbers])


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(module: Module, transposed: bool) -> None:
    """The lanes share a matrix out in pairs of neighbours, row by row."""
    matrices = np.random.default_rng(1).integers(0, 2**16, (4, 8, 8), np.uint16)
    registers = uninitialised((4, 32), np.uint32)
    module.get_function("ldmatrix")((1,), (32,), (matrices, registers, np.bool_(transposed)))
    rows = matrices.swapaxes(1, 2) if transposed else matrices
    np.testing.assert_array_equal(registers.view(np.uint16).reshape(4, 64), rows.reshape(4, 64))


@pytest.mark.parametrize("transposed", [False, True])
def test_stmatrix_undoes_ldmatrix(module: Module, transposed: bool) -> None:
    matrices = np.random.default_rng(2).integers(0, 2**16, (4, 8, 8), np.uint16)
    registers, stored = uninitialised((4, 32), np.uint32), uninitialised((4, 8, 8), np.uint16)
    flag = np.bool_(transposed)
    module.get_function("ldmatrix")((1,), (32,), (matrices, registers, flag))
    module.get_function("stmatrix")((1,), (32,), (registers, stored, flag))
    np.testing.assert_array_equal(stored, matrices)


WGMMA_ACCUMULATOR = ((4, 8, 4, 2, 2, 8), (128, 1, 16, 64, 8, 512))


def test_wgmma_with_tf32_operand_in_registers(module: Module) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(-8, 9, (64, 8)), rng.integers(-8, 9, (64, 8))
    numbers = element_numbers(((4, 8, 4, 2, 2), (64, 1, 16, 8, 256)))
    x = a.T.reshape(-1)[numbers].astype(np.float32).view(np.uint32)
    y = b.reshape(8, 8, 2, 4).swapaxes(1, 2).astype(np.float32).view(np.uint32)
    d = uninitialised((32, 128))
    module.get_function("wgmma_tf32_rs")((1,), (128,), (x, np.ascontiguousarray(y), d))
    expected = (a @ b.T).T.reshape(-1)[element_numbers(WGMMA_ACCUMULATOR)]
    np.testing.assert_array_equal(d.reshape(-1), expected)


def test_wgmma_with_bf16_operand_in_registers(module: Module) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(-8, 9, (64, 16)), rng.integers(-8, 9, (64, 16))
    numbers = element_numbers(((2, 4, 8, 4, 2, 2), (64, 128, 1, 16, 8, 512)))
    pairs = a.T.reshape(-1)[numbers].astype(ml_dtypes.bfloat16)
    y = b.reshape(8, 8, 2, 8).swapaxes(1, 2).astype(ml_dtypes.bfloat16).view(np.uint16)
    d = uninitialised((32, 128))
    args = (pairs.view(np.uint32), np.ascontiguousarray(y), d)
    module.get_function("wgmma_bf16_rs")((1,), (128,), args)
    expected = (a @ b.T).T.reshape(-1)[element_numbers(WGMMA_ACCUMULATOR)]
    np.testing.assert_array_equal(d.reshape(-1), expected)


def swizzle(image: np.ndarray, width: int) -> np.ndarray:
    """Permute the 16-byte pieces of rows of `width` bytes, by the number of their 128 bytes."""
    flat = image.reshape(-1, 8)  # pieces of 8 items
    pieces = np.arange(len(flat))
    mask = max(width // 16, 1) - 1
    permuted: np.ndarray = flat[pieces ^ (pieces // 8 & mask)]
    return permuted.reshape(image.shape)


@pytest.mark.parametrize("width", [16, 32, 64, 128])
@pytest.mark.parametrize("transposed", [False, True])
def test_wgmma_operands_and_accumulators(module: Module, width: int, transposed: bool) -> None:
    """Atoms of 8 rows of `width` bytes: along k (K-major), or along the rows of a and b."""
    rng = np.random.default_rng(width)
    a, b = rng.integers(-8, 9, (64, 16)), rng.integers(-8, 9, (64, 16))
    items = width // 2
    images = []
    for operand in (a, b):
        memory = operand.T if transposed else operand  # rows of memory, contiguous items
        rows, columns = memory.shape
        if not transposed and items > columns:  # an atom is wider than one instruction reads
            memory = np.pad(memory, ((0, 0), (0, items - columns)))
            columns = items
        atoms = memory.reshape(rows // 8, 8, columns // items, items).transpose(2, 0, 1, 3)
        image = np.zeros(64 * 64, int)
        image[: atoms.size] = swizzle(atoms.reshape(-1), width)
        images.append(image.astype(ml_dtypes.bfloat16).view(np.uint16))
    atom = 8 * width
    # Distances of atoms next to each other in a row of memory, and from row to row of atoms.
    across, down = (2 if transposed else 8) * atom, atom
    leading, stride = across, down
    if transposed and width == 16:
        leading, stride = down, across
    mode = {16: 0, 128: 1, 64: 2, 32: 3}[width]
    descriptor = np.uint64(leading >> 4 << 16 | stride >> 4 << 32 | mode << 62)
    d = uninitialised((32, 128))
    module.get_function("wgmma_bf16")(
        (1,), (128,), (*images, d, descriptor, descriptor, np.bool_(transposed))
    )
    numbers = element_numbers(WGMMA_ACCUMULATOR)
    np.testing.assert_array_equal(d.reshape(-1), (a @ b.T).T.reshape(-1)[numbers])
