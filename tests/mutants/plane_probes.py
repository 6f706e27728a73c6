"""Operands that are brought into planes, as products on tensor cores ask for them.

Every path of a kernel has a probe: packs, their tail and what is not aligned; one block and
several, one split and several; exponents by row and by column; sums wanted and not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import numpy as np

from gpugrad import dispatch
from gpugrad.gpu import planes
from tests.support.cases import LAYOUTS, elementwise_arrays, random_array
from tests.support.planes import (
    COUNTS,
    Device,
    any_bits,
    expect_split,
    expect_split_gradient,
    exponents_apart,
    largest_anywhere,
)

BOTH = ("rows", "columns")


@dataclass(frozen=True)
class PlaneProbe:
    """A call of a function of gpugrad/gpu/planes.py, and what its planes must be."""

    words: str
    check: Callable[[Device], None]

    def __str__(self) -> str:
        return self.words

    def run(self) -> None:
        """Call it on the current runtime; AssertionError or EmulatorError for what is wrong."""
        self.check(Device(dispatch.runtime()))


def _split(
    words: str,
    matrix: np.ndarray,
    count: int,
    outers: tuple[str, ...] = BOTH,
    grid_rows: int = planes.MAX_GRID_Y,
) -> PlaneProbe:
    def check(device: Device) -> None:
        with mock.patch.object(planes, "MAX_GRID_Y", grid_rows):
            expect_split(device, matrix, count, outers)

    return PlaneProbe(f"split into {count}, {words}", check)


def _gradient(
    shape: tuple[int, int],
    count: int,
    outers: tuple[str, ...] = BOTH,
    *,
    layouts: tuple[str, str] = ("C", "C"),
    logits: bool = False,
    db: str = "C",
    accumulate: bool = False,
) -> PlaneProbe:
    arrays = elementwise_arrays(shape, "float32")
    dy, saved = arrays["dy"], arrays["z" if logits else "y"]
    dy, saved = (
        array if layout == "C" else LAYOUTS[layout](array)
        for array, layout in zip((dy, saved), layouts, strict=True)
    )
    sums = None
    if db:
        sums = random_array(shape[1:], "float32", 9)
        sums = sums if db == "C" else LAYOUTS[db](sums)

    def check(device: Device) -> None:
        expect_split_gradient(
            device,
            dy,
            saved,
            count,
            logits=logits,
            outers=outers,
            db=sums,
            accumulate_db=accumulate,
        )

    words = f"split_gradient {'x'.join(map(str, shape))} into {count}, {layouts}, by {outers}"
    return PlaneProbe(f"{words}, logits {logits}, db {db or None} add {accumulate}", check)


def _far_rows() -> np.ndarray:
    """Rows and columns with their largest magnitude anywhere, from subnormal numbers up."""
    matrix = np.zeros((300, 300), np.float32)
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    random = np.random.default_rng(0)
    for offset, values in enumerate((powers, -np.nextafter(powers, np.float32(0)))):
        where = random.permutation(300)[: powers.size]
        matrix[where, random.permutation(300)[: powers.size]] = values * (1 - 0.3 * offset)
    return matrix


def _splits() -> list[PlaneProbe]:
    found = [
        _split("any bits", any_bits((72, 40)), 3, ("rows",)),
        *(_split("far magnitudes", exponents_apart((20, 40)), count) for count in (2, 1)),
        *(_split("any bits", any_bits((72, 40)), count) for count in (2, 1)),
        _split("far rows", _far_rows(), 2),
    ]
    random = random_array((37, 43), "float32", 1)
    found += [
        _split("37x43", random, 2),
        _split("many rows", random_array((600, 10), "float32", 1), 2, grid_rows=2),
        _split("wide", random_array((9, 600), "float32", 1), 2),
        _split("ten splits", largest_anywhere((600, 70)), 2),
        _split("two blocks of rows", random_array((40, 40), "float32", 1), 3, ("rows",)),
    ]
    for layout in ("fortran", "padded rows", "element offset", "sliced", "reversed"):
        for shape in ((20, 40), (20, 33)):
            matrix = LAYOUTS[layout](random_array(shape, "float32", 1))
            found.append(_split(f"{shape} {layout}", matrix, 2))
    return found


def _gradients() -> list[PlaneProbe]:
    return [
        *(_gradient((20, 36), count, outers) for count in COUNTS for outers in (BOTH, BOTH[:1])),
        *(_gradient((21, 35), count, BOTH[1:]) for count in COUNTS),
        *(_gradient((131, 72), count, db="") for count in COUNTS),
        *(_gradient((131, 33), count, db="") for count in COUNTS),
        *(_gradient((20, 36), 2, logits=True, db=db) for db in ("", "C")),
        *(
            _gradient((20, 36), 2, layouts=layouts)
            for layout in ("padded rows", "element offset", "fortran")
            for layouts in ((layout, "C"), ("C", layout))
        ),
        *(_gradient((67, 36), 2, db="sliced", accumulate=add) for add in (False, True)),
        _gradient((600, 70), 3, db="sliced", accumulate=True),
    ]


PLANE_PROBES = {"split": _splits(), "split_gradient": _gradients()}
