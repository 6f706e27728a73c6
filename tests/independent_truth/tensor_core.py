"""What recorded products multiply and where their results go, on a tensor core as CuTe has it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .cute import LEADING, MAJORS, Tables
from .recording import MEMORY, RIGHT, Recording

REGISTERS = {  # m, n, k; values of a lane in A and in B; values in a register
    "mma_f16": ((16, 8, 16), (8, 4), 2),
    "mma_bf16": ((16, 8, 16), (8, 4), 2),
    "mma_f64_large": ((16, 8, 16), (8, 4), 1),
    "mma_f64": ((8, 8, 4), (1, 1), 1),
}
WGMMA_M, WGMMA_K = 64, 16
PATTERN = 1024  # bytes after which any swizzle repeats


@dataclass(frozen=True)
class Fragments:
    """Numbers of the elements that one product multiplies, and of its results."""

    a: np.ndarray  # (m, k)
    b: np.ndarray  # (n, k)
    d: np.ndarray  # (m, n)
    accumulators: tuple[int, ...]  # tells those that are added to from others


def expect_right(recording: Recording, tables: Tables) -> None:
    """Assert that the recorded products are those of the result, each once, and go where it is.

    Of one plane that is shown to the last element; of several, whose sums are of several products,
    of the operands alone.
    """
    rows, columns = recording.result.shape
    contraction = recording.contraction
    planes = range(recording.planes)
    every = [
        (p, q, k) for p in planes for q in planes[: len(planes) - p] for k in range(contraction)
    ]
    added: dict[tuple[int, ...], list[Fragments]] = defaultdict(list)
    for fragments in fragments_of(recording, tables):
        added[fragments.accumulators].append(fragments)
    seen = np.zeros((rows, columns), int)
    for products in added.values():
        found = []
        row = products[0].a[:, 0] // contraction % rows
        column = (products[0].b[:, 0] - RIGHT) // contraction % columns
        for one in products:
            plane_a, terms = expect_operand(one.a, row, rows, contraction)
            plane_b, terms_b = expect_operand(one.b - RIGHT, column, columns, contraction)
            np.testing.assert_array_equal(terms, terms_b, "terms of A and B")
            found += [(plane_a, plane_b, int(k)) for k in terms]
        assert sorted(found) == every, "not every product once"
        seen[np.ix_(row, column)] += 1
        if len(planes) == 1:
            np.testing.assert_array_equal(recording.result[np.ix_(row, column)], products[-1].d)
    assert (seen == 1).all(), "not every result once"


def expect_operand(
    numbers: np.ndarray, outer: np.ndarray, outers: int, contraction: int
) -> tuple[int, np.ndarray]:
    """Assert that a fragment is of one plane and of outer indices; return the plane and terms."""
    plane = int(numbers[0, 0]) // (outers * contraction)
    terms = numbers[0] % contraction
    expected = ((plane * outers + outer) * contraction)[:, None] + terms
    np.testing.assert_array_equal(numbers, expected, "elements of an operand")
    return plane, terms


def fragments_of(recording: Recording, tables: Tables) -> Iterator[Fragments]:
    """Return every product: of a warp's lanes, or of a warpgroup's threads, together."""
    by_warpgroup = recording.instruction == "wgmma"
    read, group = (_from_shared_memory, 128) if by_warpgroup else (_from_registers, 32)
    products = recording.products
    ordered = products[np.lexsort((products["thread"], products["block"]))]  # stable
    groups = ordered["block"] * 1024 + ordered["thread"] // group
    for one in np.unique(groups):
        own = ordered[groups == one]
        assert len(own) % group == 0, "threads differ in their products"
        for call in own.reshape(group, -1).T:
            assert (np.diff(call["thread"]) == 1).all(), "threads differ in their products"
            yield read(recording, call, tables)


def element_of(layout: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the fragment whose elements threads hold: values (threads, values of each)."""
    fragment = np.full(shape[0] * shape[1], -1)
    fragment[layout.astype(int)] = values.T.reshape(-1)
    assert fragment.min() >= 0
    return fragment.reshape(shape[::-1]).T


def _numbers(call: np.ndarray, count: int) -> np.ndarray:
    return call["number"][:, None] + np.arange(count)


def _accumulators(call: np.ndarray) -> tuple[int, ...]:
    return (int(call["block"][0]), *call["accumulators"].tolist())


def _from_registers(recording: Recording, call: np.ndarray, tables: Tables) -> Fragments:
    name = recording.instruction
    (m, n, k), counts, per_register = REGISTERS[name]
    registers = call["operands"]
    if per_register == 2:
        halves = np.ascontiguousarray(registers).view(np.uint16).reshape(*registers.shape, 4)
        values = halves[..., :2].reshape(len(call), -1).astype(int)
    else:
        values = np.ascontiguousarray(registers).view(np.float64).astype(int)
    a, b = values[:, : counts[0]], values[:, counts[0] : sum(counts)]
    return Fragments(
        element_of(tables[f"fragment {name} A"], a, (m, k)),
        element_of(tables[f"fragment {name} B"], b, (n, k)),
        element_of(tables[f"fragment {name} C"], _numbers(call, m * n // 32), (m, n)),
        _accumulators(call),
    )


def _from_shared_memory(recording: Recording, call: np.ndarray, tables: Tables) -> Fragments:
    operands = call["operands"][:, :5]
    assert (operands == operands[0]).all(), "threads of a warpgroup have other operands"
    a, b, *transposed, columns = operands[0].tolist()
    assert transposed == [order == "M" for order in recording.orders]
    depth = 64 if recording.planes == 1 else 32
    memory = recording.memory[int(call["block"][0])]
    name = f"fragment m64n{columns}k16 C"
    return Fragments(
        _operand(recording, memory, a, "A", f"{depth} 128", WGMMA_M, tables),
        _operand(recording, memory, b, "B", f"{depth} {columns}", columns, tables),
        element_of(tables[name], _numbers(call, columns // 2), (WGMMA_M, columns)),
        _accumulators(call),
    )


def _operand(
    recording: Recording,
    memory: np.ndarray,
    descriptor: int,
    operand: str,
    tile: str,
    outers: int,
    tables: Tables,
) -> np.ndarray:
    """Return the elements (outer, contraction) that a descriptor stands for.

    It must be CuTe's of some slice of a tile, but for the tile's address. Where one chunk of 64 is
    read of an MN-major operand, LBO is not used: CuTe writes 0 there.
    """
    order = recording.orders["AB".index(operand)]
    name = f"{MAJORS[order]} {tile}"
    unused = LEADING if order == "M" and outers == WGMMA_M else 0
    depth = int(tile.split()[0])
    places = tables[f"place {name}"].astype(int).reshape(-1, depth)
    slices = [
        (first, k) for first in range(0, len(places), outers) for k in range(0, depth, WGMMA_K)
    ]
    for (first, k), own in zip(slices, tables[f"descriptor {operand} {name}"], strict=True):
        start = 16 * ((descriptor & ~unused) - (int(own) & ~unused))  # of the tile
        if start % PATTERN == 0 and 0 <= start - recording.start < MEMORY:
            items = places[first : first + outers, k : k + WGMMA_K] + start - recording.start
            return memory.view(np.uint16)[items // 2].astype(int)
    raise AssertionError(f"{operand}: {descriptor:#018x} is no descriptor of CuTe's")
