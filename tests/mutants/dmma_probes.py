"""Products on FP64 tensor cores, called by themselves: small shapes, both tiles, any strides."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpugrad import dispatch
from tests.support.cases import LAYOUTS, random_array
from tests.support.dmma import expect_forward, expect_product
from tests.support.planes import Device

PADDED = "padded rows"
OFFSET = "element offset"


@dataclass(frozen=True)
class ProductProbe:
    """A call of a function of gpugrad/gpu/dmma.py, and what its result must be."""

    words: str
    check: Callable[[Device], object]

    def __str__(self) -> str:
        return self.words

    def run(self) -> None:
        """Call it on the current runtime; AssertionError or EmulatorError for what is wrong."""
        self.check(Device(dispatch.runtime()))


def _in(layout: str, array: np.ndarray) -> np.ndarray:
    return array if layout == "C" else LAYOUTS[layout](array)


def _product(
    shape: tuple[int, int, int],
    layouts: tuple[str, str, str] = ("C", "C", "C"),
    *,
    tile: int = 64,
    splits: int = 1,
    accumulate: bool = False,
) -> ProductProbe:
    rows, columns, contraction = shape
    of_left, of_right, of_out = layouts

    def check(device: Device) -> None:
        expect_product(
            device,
            _in(of_left, random_array((rows, contraction), "float64", 1)),
            _in(of_right, random_array((columns, contraction), "float64", 2)),
            tile,
            splits=splits,
            out=_in(of_out, random_array((rows, columns), "float64", 3)),
            accumulate=accumulate,
        )

    words = f"dmma.product {'x'.join(map(str, shape))} {', '.join(layouts)}, tile {tile}"
    return ProductProbe(f"{words}, splits {splits}, add {accumulate}", check)


def _forward(
    shape: tuple[int, int, int],
    layouts: tuple[str, str, str, str] = ("C", "C", "C", "C"),
    *,
    tile: int = 64,
    bias: bool = True,
) -> ProductProbe:
    n, m, k = shape
    of_x, of_w, of_b, of_y = layouts

    def check(device: Device) -> None:
        b = _in(of_b, random_array((m,), "float64", 3))
        expect_forward(
            device,
            _in(of_x, random_array((n, k), "float64", 1, 0.1)),
            _in(of_w, random_array((k, m), "float64", 2)),
            b if bias else None,
            tile,
            out=_in(of_y, random_array((n, m), "float64", 4)),
        )

    words = f"dmma.forward {'x'.join(map(str, shape))} {', '.join(layouts)}, tile {tile}"
    return ProductProbe(f"{words}, bias {bias}", check)


DMMA_PROBES = {
    "dmma.product": [
        _product((5, 3, 2)),
        _product((66, 70, 67)),  # several tiles and steps each way
        _product((66, 70, 68), accumulate=True),  # packs
        _product((66, 35, 21), ("fortran", "fortran", "fortran")),
        _product((68, 36, 20), ("fortran", "fortran", "C"), accumulate=True),
        _product((66, 35, 21), (PADDED, PADDED, PADDED)),
        _product((35, 66, 20), ("fortran", "C", OFFSET)),
        _product((35, 66, 20), ("C", "fortran", "sliced"), accumulate=True),
        _product((36, 68, 20), (OFFSET, "C", "C")),
        _product((36, 68, 20), ("C", OFFSET, "C")),
        _product((36, 68, 20), ("sliced", "reversed", "reversed")),
        _product((5, 12, 100), splits=3),
        _product((5, 11, 100), splits=2, accumulate=True),
        _product((130, 132, 36), tile=128),
        _product((129, 70, 35), ("fortran", PADDED, "C"), tile=128),
        _product((580, 70, 3)),  # more rows of tiles than are walked together
    ],
    "dmma.forward": [
        _forward((5, 3, 2)),
        _forward((66, 70, 67)),
        _forward((66, 36, 20), bias=False),
        _forward((66, 36, 20), ("fortran", "fortran", "sliced", "fortran")),
        _forward((66, 36, 20), (OFFSET, "C", "C", "C")),
        _forward((66, 36, 20), ("C", OFFSET, "C", "C")),
        _forward((66, 36, 20), ("C", "C", OFFSET, OFFSET)),
        _forward((35, 70, 18), (PADDED, PADDED, "C", PADDED)),
        _forward((130, 20, 18), tile=128),
    ],
}
