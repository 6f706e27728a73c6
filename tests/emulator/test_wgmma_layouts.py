"""Operands and accumulators of wgmma, from the canonical layouts of the PTX ISA and CUTLASS.

A layout counts pieces of 16 bytes. As CuTe writes it, it has extents and strides along the rows of
the operand (MN) and along the contraction (K); the 8 items of a piece follow each other along one
of the two. The address in bytes is then swizzled: bits 4 and up are XORed with bits 7 and up.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import Module
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.test_layouts import element_numbers

DEPTH, ROWS, ITEMS = 16, 64, 8  # of a wgmma on 16-bit items; of a piece
IMAGE_A, IMAGE_B = 24 << 10, 72 << 10  # bytes
ANY = 1 << 20  # an extent that takes up the rest of an index

# ((extents, strides) along MN, (extents, strides) along K); LBO and SBO stand for the offsets of a
# descriptor in pieces
Mode = tuple[tuple[int, ...], tuple[int | str, ...]]
K_MAJOR: dict[int, tuple[Mode, Mode]] = {
    0: (((8, ANY), (1, "SBO")), ((2,), ("LBO",))),
    32: (((8, ANY), (2, "SBO")), ((2,), (1,))),
    64: (((8, ANY), (4, "SBO")), ((2,), (1,))),
    128: (((8, ANY), (8, "SBO")), ((2,), (1,))),
}
MN_MAJOR: dict[int, tuple[Mode, Mode]] = {
    0: (((1, ANY), (0, "SBO")), ((8, ANY), (1, "LBO"))),
    32: (((2, ANY), (1, "LBO")), ((8, ANY), (2, "SBO"))),
    64: (((4, ANY), (1, "LBO")), ((8, ANY), (4, "SBO"))),
    128: (((8, ANY), (1, "LBO")), ((8, ANY), (8, "SBO"))),
}
SWIZZLE_FIELD = {0: 0, 128: 1, 64: 2, 32: 3}
SWIZZLE_BITS = {0: 0, 32: 1, 64: 2, 128: 3}


def distances(mode: Mode, count: int, offsets: dict[str, int]) -> np.ndarray:
    """Return pieces from the first index along a mode to each of `count`."""
    rest, total = np.arange(count), np.zeros(count, int)
    for extent, stride in zip(*mode, strict=True):
        total += rest % extent * (offsets[stride] if isinstance(stride, str) else stride)
        rest //= extent
    return total


@dataclass(frozen=True)
class Operand:
    """How an operand of so many rows lies in shared memory, from an aligned address on."""

    rows: int
    mn_major: bool
    swizzle: int
    leading: int  # in pieces, as the stride
    stride: int
    start: int  # bytes

    def addresses(self) -> np.ndarray:
        """Return bytes from the aligned address to each item: (rows, DEPTH)."""
        modes = (MN_MAJOR if self.mn_major else K_MAJOR)[self.swizzle]
        offsets = {"LBO": self.leading, "SBO": self.stride}
        rows, k = np.arange(self.rows), np.arange(DEPTH)
        in_piece = rows[:, None] % ITEMS if self.mn_major else k % ITEMS
        along_rows = distances(modes[0], self.rows, offsets)
        along_k = distances(modes[1], DEPTH, offsets)
        if self.mn_major:
            along_rows = distances(modes[0], self.rows // ITEMS, offsets)[rows // ITEMS]
        else:
            along_k = distances(modes[1], DEPTH // ITEMS, offsets)[k // ITEMS]
        address = self.start + 16 * (along_rows[:, None] + along_k) + 2 * in_piece
        mask = ((1 << SWIZZLE_BITS[self.swizzle]) - 1) << 4
        swizzled: np.ndarray = address ^ (address >> 3 & mask)
        return swizzled

    def descriptor(self) -> np.uint64:
        """Without the aligned address."""
        fields = self.start >> 4 | self.leading << 16 | self.stride << 32
        return np.uint64(fields | SWIZZLE_FIELD[self.swizzle] << 62)


def random_operand(rng: np.random.Generator, rows: int, mn_major: bool, swizzle: int) -> Operand:
    """Atoms next to each other or apart, in either order; starts that a next step would have."""
    width = swizzle or 16
    atom = 8 * width // 16  # pieces
    if mn_major and swizzle:
        atoms = {"LBO": -(-rows * 2 // width), "SBO": 2}
    else:
        atoms = {"LBO": 1 if swizzle else 2, "SBO": rows // 8}
    offsets = {name: int(rng.integers(0, 1 << 14)) for name in atoms}  # where there is one atom
    distance = atom * int(rng.integers(1, 3))
    for name in rng.permutation([name for name in atoms if atoms[name] > 1]):
        offsets[name] = distance
        distance = distance * atoms[name] + atom * int(rng.integers(0, 3))
    start = int(rng.integers(0, 2)) * 8 * width
    if swizzle and not mn_major:
        start += int(rng.integers(0, width // 32)) * 32
    elif rows * 2 < width:
        start += int(rng.integers(0, (width - rows * 2) // 16 + 1)) * 16
    return Operand(rows, mn_major, swizzle, offsets["LBO"], offsets["SBO"], start)


def image(operand: Operand, values: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    """Return shared memory with an operand in it, and other numbers around."""
    items = np.full(size // 2, 99, dtype)
    places = operand.addresses() // 2
    assert len(np.unique(places)) == places.size
    items[places] = values
    return items


def check_product(
    module: Module,
    rng: np.random.Generator,
    a: Operand | None,
    b: Operand,
    dtype: Any,
    **options: Any,
) -> None:
    """One product of small integers, onto others; no `a`: it comes in registers."""
    x, y = rng.integers(-8, 9, (ROWS, DEPTH)), rng.integers(-8, 9, (b.rows, DEPTH))
    c = rng.integers(-99, 100, (ROWS, b.rows))
    numbers = element_numbers(((4, 8, 4, 2, 2, b.rows // 8), (128, 1, 16, 64, 8, 512)))
    d = c.T.reshape(-1)[numbers].astype(np.float32)
    fragments = element_numbers(((2, 4, 8, 4, 2, 2), (64, 128, 1, 16, 8, 512)))
    registers = None if a else x.T.reshape(-1)[fragments].astype(dtype).view(np.uint32)
    images = [
        image(a, x, IMAGE_A, dtype) if a else np.zeros(IMAGE_A // 2, dtype),
        image(b, y, IMAGE_B, dtype),
    ]
    memory = np.concatenate(images).view(np.dtype([(name, np.uint32) for name in "xyzw"]))
    arguments = (
        memory,
        np.int32(memory.nbytes),
        registers,
        d,
        a.descriptor() if a else np.uint64(0),
        b.descriptor(),
        np.int32(b.rows),
        np.bool_(a.mn_major if a else False),
        np.bool_(b.mn_major),
    )
    kernel = module.get_function("product")
    kernel((1,), (128,), arguments, shared_mem=IMAGE_A + IMAGE_B, **options)
    expected = (c + x @ y.T).T.reshape(-1)[numbers]
    np.testing.assert_array_equal(d, expected, err_msg=f"{a}, {b}")


SWIZZLES = [0, 32, 64, 128]


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FOLDER / "products.cu")


@pytest.mark.slow
@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("mn_major", [False, True], ids=["K-major", "MN-major"])
def test_every_width(module: Module, mn_major: bool, swizzle: int) -> None:
    rng = np.random.default_rng(swizzle + mn_major)
    for columns in range(8, 257, 8):
        a = random_operand(rng, ROWS, bool(rng.integers(2)), int(rng.choice(SWIZZLES)))
        b = random_operand(rng, columns, mn_major, swizzle)
        check_product(module, rng, a, b, ml_dtypes.bfloat16)


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("mn_major", [False, True], ids=["K-major", "MN-major"])
def test_first_operand(module: Module, mn_major: bool, swizzle: int) -> None:
    rng = np.random.default_rng(swizzle + mn_major)
    for columns in (8, 40, 128):
        a = random_operand(rng, ROWS, mn_major, swizzle)
        b = random_operand(rng, columns, bool(rng.integers(2)), int(rng.choice(SWIZZLES)))
        check_product(module, rng, a, b, ml_dtypes.bfloat16)


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("mn_major", [False, True], ids=["K-major", "MN-major"])
def test_first_operand_in_registers(module: Module, mn_major: bool, swizzle: int) -> None:
    rng = np.random.default_rng(swizzle + mn_major)
    for columns in (8, 72, 192, 256):
        b = random_operand(rng, columns, mn_major, swizzle)
        check_product(module, rng, None, b, ml_dtypes.bfloat16, policy="random")


def test_float16() -> None:
    module = Module(FOLDER / "products.cu", defines=("WIDEST=24", "TYPE=f16"))
    rng = np.random.default_rng(0)
    for mn_major in (False, True):
        b = random_operand(rng, 24, mn_major, 64)
        check_product(module, rng, random_operand(rng, ROWS, mn_major, 128), b, np.float16)
        check_product(module, rng, None, b, np.float16)
