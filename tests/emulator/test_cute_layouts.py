"""Fragments, ldmatrix and wgmma operands of the emulator, against the CuTe headers."""

import ml_dtypes
import numpy as np
import pytest

from gpugrad.planning.configurations import WGMMA
from tests.conftest import needs_compiler
from tests.emulator import Module, uninitialised
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.test_layouts import INSTRUCTIONS, element_numbers
from tests.emulator.test_wgmma_layouts import IMAGE_A, IMAGE_B
from tests.independent_truth import LEADING, MAJORS, Tables, layouts

pytestmark = pytest.mark.slow  # CuTe's headers take long to compile
WIDTHS = {  # of tiles, by the terms of a stage
    of[0].BLOCK_K: [one.BLOCK_N for one in of] for of in (WGMMA[1], WGMMA[2])
}


@pytest.fixture(scope="module")
def tables() -> Tables:
    needs_compiler()
    return layouts()


@pytest.mark.parametrize("name", ["mma_bf16", "mma_f16", "mma_f64", "mma_f64_large"])
def test_fragments_that_the_emulator_is_tested_with(tables: Tables, name: str) -> None:
    instruction = INSTRUCTIONS[name]
    for operand, layout in (("A", instruction.a), ("B", instruction.b), ("C", instruction.d)):
        np.testing.assert_array_equal(
            element_numbers(layout), tables[f"fragment {name} {operand}"], operand
        )


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(tables: Tables, transposed: bool) -> None:
    matrices = np.random.default_rng(1).permutation(4 * 8 * 8).astype(np.uint16)
    registers = uninitialised((4, 32), np.uint32)
    kernel = Module(FOLDER / "fragments.cu").get_function("ldmatrix")
    kernel((1,), (32,), (matrices, registers, np.bool_(transposed)))
    table = tables["matrices ldmatrix" + "_trans" * transposed].astype(int)
    values = registers.view(np.uint16).reshape(4, 32, 2).swapaxes(1, 2)
    np.testing.assert_array_equal(values.reshape(-1), matrices[table])


@pytest.mark.parametrize("orders", ["KM", "MK"])
@pytest.mark.parametrize(
    ("depth", "columns"), [(depth, columns) for depth in WIDTHS for columns in WIDTHS[depth]]
)
def test_products_of_the_emulator(tables: Tables, depth: int, columns: int, orders: str) -> None:
    """Descriptors, operands in memory and accumulators are CuTe's; an unused LBO is any."""
    kernel = Module(FOLDER / "products.cu").get_function("product")
    rng = np.random.default_rng(columns + depth)
    matrices, images, descriptors = [], [], []
    names = (f"{MAJORS[orders[0]]} {depth} 128", f"{MAJORS[orders[1]]} {depth} {columns}")
    for operand, name, size in zip("AB", names, (IMAGE_A, IMAGE_B), strict=True):
        places = tables[f"place {name}"].astype(int).reshape(-1, depth) // 2
        matrix = rng.integers(-8, 9, places.shape)
        image = np.zeros(size // 2, ml_dtypes.bfloat16)
        image[places] = matrix
        matrices.append(matrix)
        images.append(image)
        descriptors.append(tables[f"descriptor {operand} {name}"])
    memory = np.concatenate(images).view(np.dtype([(one, np.uint32) for one in "xyzw"]))
    layout = tables[f"fragment m64n{columns}k16 C"].astype(int)
    steps = depth // 16
    for step in range(steps):
        first = 64 * (step % 2)  # of A's rows
        a = descriptors[0][first // 64 * steps + step]
        b = descriptors[1][step]
        if orders[0] == "M":
            a ^= np.uint64(rng.integers(1 << 14) << 16 & LEADING)
        c = rng.integers(-99, 100, (64, columns))
        d = c.T.reshape(-1)[layout].astype(np.float32)
        transposed = [np.bool_(order == "M") for order in orders]
        kernel(
            (1,),
            (128,),
            (memory, np.int32(memory.nbytes), None, d, a, b, np.int32(columns), *transposed),
            shared_mem=memory.nbytes,
        )
        terms = slice(16 * step, 16 * step + 16)
        product = c + matrices[0][first : first + 64, terms] @ matrices[1][:, terms].T
        np.testing.assert_array_equal(d, product.T.reshape(-1)[layout])
