"""The tables of errors in docs/numerics.md: what is in them, and how they are written there.

They are computed by the NumPy model of the kernels' arithmetic in arithmetic.py.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gpugrad.planning import problem as layers
from gpugrad.planning.choice import EXACT_TERMS, RECOVERED_TERMS, fused_layer, gemm
from gpugrad.testing.product_data import FAMILIES, describe, draw
from gpugrad.testing.product_errors import ROUNDOFF, Errors, Exact, ProductErrors, exact
from tests.accuracy.arithmetic import (
    ALGORITHM,
    FUSED,
    MACHINES,
    by_multiply_adds,
    by_tensor_cores,
)

Array = np.ndarray[Any, Any]
Cells = tuple[str, ...]

PATH = Path(__file__).parents[2] / "docs" / "numerics.md"
CONTRACTIONS = tuple(sorted({1, 16, EXACT_TERMS, 256, 4096, 10**6}))
IN_FUSED = (RECOVERED_TERMS, 4096, 10**6)
SIXTEEN_BIT = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SIXTEEN_BIT_FAMILIES = ("ordinary", "positive", "cancelling")
SIXTEEN_BIT_CONTRACTIONS = (16, 64, 256, 4096)
MAX_TERMS = 2 * 64 * 64 * 4096  # of all components of a row of a table
BROKEN = "(!)"  # beside what breaks its class's promise
LONG = 2**16  # contractions with fewer components


class Row(NamedTuple):
    """A row of a table: data, and the terms of each sum."""

    family: str
    contraction: int


class Problem(NamedTuple):
    """Operands (outer, contraction) and what their product is."""

    left: Array
    right: Array
    answer: Exact


class Table(NamedTuple):
    """A table: its title row, its rows, and how the cells behind these are computed."""

    name: str
    head: Cells
    rows: tuple[Row, ...]
    cells: Callable[[Row], Cells]


# ---- errors


def samples(contraction: int) -> tuple[int, int, int]:
    """Return the rows and columns of each product, and how many products there are."""
    rows, columns = (64, 64) if contraction <= LONG else (8, 32)
    return rows, columns, max(1, min(8, MAX_TERMS // (rows * columns * contraction)))


def problems(row: Row, dtype: Any = np.float32) -> list[Problem]:
    """Make the operands of a row's products, and the products in float64."""
    rows, columns, count = samples(row.contraction)
    drawn = (draw(row.family, rows, columns, row.contraction, seed) for seed in range(count))
    pairs = ((left.astype(dtype), right.astype(dtype)) for left, right in drawn)
    return [Problem(left, right, exact(left, right)) for left, right in pairs]


def split_length(left: Array, right: Array, planes: int, machine: str) -> int:
    """Return the terms a split that the package takes for dw, whose contraction is the batch."""
    shape = len(left), len(right), left.shape[1]
    algorithm = ALGORITHM[machine] if planes else "ffma"
    plan = gemm(*shape, "float32", split=True, algorithm=algorithm, planes=planes)
    return plan.split_length


Product = Callable[[Array, Array], Array]


def multiply_adds(left: Array, right: Array) -> Array:
    """Multiply as precision="ieee" does."""
    return by_multiply_adds(left, right, split_length(left, right, 0, ""))


def tensor_cores(planes: int, machine: str) -> Product:
    """Return the product that a precision class takes on a machine."""

    def product(left: Array, right: Array) -> Array:
        length = split_length(left, right, planes, machine)
        return by_tensor_cores(left, right, planes, machine, length)

    return product


def fused_path(machine: str) -> Product:
    """Return the product of the fused kernel, split as its dw is."""

    def product(left: Array, right: Array) -> Array:
        n, k, m = left.shape[1], len(left), len(right)
        one = layers.Problem("dense_sigmoid_backward", n, k, m, "float32")
        plan = fused_layer(one, "mma")
        assert plan is not None
        length = plan.split_length
        return by_tensor_cores(left, right, plan.planes, machine, length, algorithm=FUSED)

    return product


def errors(problems: Sequence[Problem], product: Product) -> ProductErrors:
    """Measure a product."""
    results = [(product(left, right), answer) for left, right, answer in problems]
    return ProductErrors(results, problems[0].left.shape[1])


# ---- cells


def float32_cells(row: Row) -> Cells:
    """Measure every precision class of float32."""
    given = problems(row)
    ieee = errors(given, multiply_adds)
    highest = [ieee] * len(MACHINES)
    if row.contraction >= EXACT_TERMS:
        highest = [errors(given, tensor_cores(3, machine)) for machine in MACHINES]
    cells = [both(ieee.components)]
    cells += [marked(both(one.components), one.keep_promise(3, ieee)) for one in highest]
    for planes in (2, 1):
        found = [errors(given, tensor_cores(planes, machine)) for machine in MACHINES]
        worst = max(found, key=lambda one: one.norms.largest)
        cells.append(marked(power(worst.norms.largest), worst.keep_promise(planes, ieee)))
        if planes == 2:
            cells.append(power(max(one.components.largest for one in found) * ROUNDOFF))
    return tuple(cells)


def fused_cells(row: Row) -> Cells:
    """Measure "highest" where the fused kernel computes a layer's gradients on tensor cores."""
    given = problems(row)
    ieee, ours = (errors(given, one) for one in (multiply_adds, fused_path("hopper")))
    return both(ieee.components), marked(both(ours.components), ours.keep_promise(3, ieee))


def sixteen_bit_cells(row: Row) -> Cells:
    """Measure products of 16-bit operands, before they are rounded to their dtype."""
    cells: list[str] = []
    for dtype in SIXTEEN_BIT.values():
        given = problems(row, dtype)
        products = multiply_adds, *(tensor_cores(1, machine) for machine in MACHINES)
        cells += [both(errors(given, product).components) for product in products]
    return tuple(cells)


def both(found: Errors) -> str:
    """Write the largest and the root mean square."""
    return f"{found.largest:.2f} {found.rms:.3f}"


def marked(cell: str, kept: bool) -> str:
    """Mark a cell that does not keep what its class promises."""
    return cell if kept else f"{cell} {BROKEN}"


def power(error: float) -> str:
    """Write an error as a power of two."""
    return "0" if error == 0 else f"2^{math.log2(error):.1f}"


# ---- tables

TABLES = (
    Table(
        "float32",
        (
            *("data", "terms", "multiply-adds", '"highest", Hopper', '"highest", Ampere'),
            *('"high", in norm', '"high", by component', '"medium", in norm'),
        ),
        tuple(Row(family, length) for family in FAMILIES for length in CONTRACTIONS),
        float32_cells,
    ),
    Table(
        "fused",
        ("data", "terms", "multiply-adds", '"highest", Hopper'),
        tuple(Row(family, length) for family in FAMILIES for length in IN_FUSED),
        fused_cells,
    ),
    Table(
        "16-bit",
        (
            *("data", "terms"),
            *(f"{dtype}, {how}" for dtype in SIXTEEN_BIT for how in ("FFMA", "Hopper", "Ampere")),
        ),
        tuple(
            Row(family, length)
            for family in SIXTEEN_BIT_FAMILIES
            for length in SIXTEEN_BIT_CONTRACTIONS
        ),
        sixteen_bit_cells,
    ),
)


def line(cells: Sequence[str]) -> str:
    """Write a row in Markdown."""
    return f"| {' | '.join(cells)} |"


def whole_line(table: Table, row: Row) -> str:
    """Compute a row and write it."""
    return line((row.family, str(row.contraction), *table.cells(row)))


def render(table: Table, lines: Sequence[str]) -> str:
    """Write a table between its marks."""
    ruler = line(("---", "---:", *["---"] * (len(table.head) - 2)))
    rows = "\n".join((line(table.head), ruler, *lines))
    begin, end = marks(table.name)
    return f"{begin}\n{rows}\n{end}"


def render_families() -> str:
    """Write what the families of data are."""
    begin, end = marks("data")
    rows = [line(("data", "A and B")), line(("---", "---"))]
    rows += [line((family, describe(family))) for family in FAMILIES]
    return "\n".join((begin, *rows, end))


def marks(name: str) -> tuple[str, str]:
    """Return the comments around a table."""
    return (
        f"<!-- {name}: written by python -m tests.accuracy --update -->",
        f"<!-- end: {name} -->",
    )


def replaced(text: str, name: str, block: str) -> str:
    """Put a table in the place of the one of its name."""
    begin, end = marks(name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"there is no place for the table {name}")
    return before + block + after


def committed(text: str, name: str) -> list[str]:
    """Return the lines of a table as they stand in a text, without the first two."""
    begin, end = marks(name)
    block = text.partition(begin)[2].partition(end)[0]
    return block.strip().splitlines()[2:]
