"""Products on tensor cores from planes, called by themselves, whose bits must be as in NumPy.

Every kind of planes and every orientation has a probe; tails of tiles, of the contraction and of
packs; more tiles than are walked together, more steps than stages; splits; what is not finite.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from gpugrad import dispatch
from tests.support.cases import LAYOUTS, random_array
from tests.support.plane_products import expect_product
from tests.support.planes import Device

FEW = 4  # multiprocessors: by wgmma, blocks have several tiles
PADDED = "padded rows"
OFFSET = "element offset"
Data = Callable[[int, int, int, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class MmaProbe:
    """A call of plane_products.product on tensor cores that round as those of a machine."""

    words: str
    check: Callable[[Device], object]
    machine: str = "hopper"
    algorithm: str = "mma"

    def __str__(self) -> str:
        return self.words

    def run(self) -> None:
        """Call it on the current runtime; AssertionError or EmulatorError for what is wrong."""
        runtime = dispatch.runtime()
        few = replace(runtime.facts(None), sm_count=FEW)
        with (
            mock.patch.object(runtime, "arithmetic", self.machine),
            mock.patch.object(runtime, "facts", return_value=few),
        ):
            self.check(Device(runtime, algorithm=self.algorithm))


# ---- operands (rows, contraction) and (columns, contraction)


def normal(rows: int, columns: int, contraction: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    return (
        random_array((rows, contraction), dtype, 1),
        random_array((columns, contraction), dtype, 2),
    )


def far_rows(
    rows: int, columns: int, contraction: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both operands with magnitudes from 2^-60 to 2^60."""
    left, right = normal(rows, columns, contraction, dtype)
    random = np.random.default_rng(3)
    return (
        np.ldexp(left, random.integers(-60, 61, (rows, 1))).astype(dtype),
        np.ldexp(right, random.integers(-60, 61, (columns, 1))).astype(dtype),
    )


def not_finite(
    rows: int, columns: int, contraction: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Infinities alone, beside others, against zeros, and NaNs; in some rows and columns."""
    left, right = normal(rows, columns, contraction, dtype)
    left[1, 0], left[2, 1], left[3, 2] = np.inf, -np.inf, np.nan
    left[5, :2] = np.inf, -np.inf
    left[6, 3], left[7, contraction - 1] = -np.inf, np.inf
    right[:, 3], right[0, 4], left[8, 4] = 0, np.inf, 0
    right[columns - 1, 5] = -np.inf
    return left, right


def huge(rows: int, columns: int, contraction: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite sums of a few large products, which overflow as tensor cores scale them.

    Of left's magnitudes, every third is beyond 2^111, others are as small as 2^80.
    """
    left, right = normal(rows, columns, contraction, dtype)
    exponents = np.arange(rows) % 3 * 16 + 84
    return np.ldexp(left, exponents[:, None]).astype(dtype), right


def subnormal(
    rows: int, columns: int, contraction: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Subnormal numbers, against some that make their products normal."""
    left, right = normal(rows, columns, contraction, dtype)
    exponents = np.arange(columns) % 3 * 20
    return (left * np.float32(2.0**-128), np.ldexp(right, exponents[:, None]).astype(dtype))


# ---- probes


def _product(
    shape: tuple[int, int, int],
    kind: tuple[str, int],
    layouts: tuple[str, str, str] = ("C", "C", "C"),
    *,
    data: Data = normal,
    tile: int = 64,
    splits: int = 1,
    sums: str = "",
    accumulate: bool = False,
    algorithm: str = "mma",
) -> MmaProbe:
    dtype, planes = kind

    def check(device: Device) -> None:
        arrays = (*data(*shape, dtype), random_array(shape[:2], sums or dtype, 3))
        left, right, out = (
            array if layout == "C" else LAYOUTS[layout](array)
            for array, layout in zip(arrays, layouts, strict=True)
        )
        options = {"splits": splits, "out": out, "accumulate": accumulate}
        expect_product(device, left, right, tile, planes, **options)

    words = [
        f"{algorithm}.product {'x'.join(map(str, shape))} {dtype} {planes}",
        ", ".join(layouts),
    ]
    words += [data.__name__, f"tile {tile}", f"splits {splits}"]
    words += [f"sums {sums}"] * bool(sums) + ["add"] * accumulate
    return MmaProbe(", ".join(words), check, algorithm=algorithm)


def _wgmma(*args: Any, **options: Any) -> MmaProbe:
    return _product(*args, algorithm="wgmma", **options)


THREE, TWO, ONE = (("float32", planes) for planes in (3, 2, 1))
BF16, F16 = ("bfloat16", 1), ("float16", 1)

MMA_PROBES = {
    "mma.product": [
        _product((66, 70, 235), BF16),  # several tiles and steps each way
        _product((70, 66, 235), F16, ("fortran", "fortran", "C")),
        _product((66, 70, 117), THREE, ("C", "fortran", "C")),
        _product((66, 70, 117), TWO, ("fortran", "C", "C")),
        _product((37, 20, 300), THREE, ("C", "fortran", "C"), splits=3),
        _product((37, 19, 300), TWO, ("fortran", "C", "sliced"), splits=2, accumulate=True),
        _product((35, 36, 40), F16, ("fortran", "fortran", OFFSET), sums="float32"),
        _product((36, 72, 40), BF16, (PADDED, PADDED, PADDED), accumulate=True),
        _product((580, 70, 16), TWO, ("fortran", "C", "C")),  # more than are walked together
        _product((129, 70, 100), THREE, ("C", "C", "C"), tile=128),
        _product((70, 130, 300), BF16, ("fortran", "fortran", "C"), tile=128),
        _product((40, 35, 100), TWO, ("fortran", "C", "C"), data=far_rows),
        _product((40, 35, 100), ONE, data=far_rows),
        *(
            _product((37, 19, 100), THREE, ("C", "fortran", "C"), data=data, splits=splits)
            for data in (huge, not_finite)
            for splits in (1, 2)
        ),
        _product((37, 19, 100), TWO, ("fortran", "C", "C"), data=not_finite),
        _product((40, 35, 50), THREE, ("C", "fortran", "C"), data=subnormal),
    ],
    "wgmma.product": [
        _wgmma((200, 200, 500), BF16, tile=192),  # clusters of four, more steps than stages
        _wgmma((140, 270, 300), BF16, tile=256),  # in one part
        _wgmma((130, 200, 470), ONE, ("fortran", "fortran", "C"), tile=256),
        _wgmma((5, 7, 8300), ONE),  # in two
        _wgmma((200, 270, 235), F16, ("fortran", "fortran", "C"), tile=128),
        _wgmma((300, 200, 270), THREE, ("C", "fortran", "C"), tile=192),  # clusters of two
        _wgmma((300, 130, 270), TWO, ("fortran", "C", "C"), tile=128),
        _wgmma((300, 130, 117), THREE, ("fortran", "C", "C"), tile=64),  # more tiles than blocks
        _wgmma((300, 70, 550), BF16, ("fortran", "fortran", "C"), tile=64),
        _wgmma((600, 200, 70), TWO, ("C", "C", "C"), tile=192),
        _wgmma((37, 20, 300), THREE, ("C", "fortran", "C"), splits=3),
        _wgmma((37, 19, 300), TWO, ("fortran", "C", "sliced"), splits=2, accumulate=True),
        _wgmma((150, 130, 200), BF16, tile=128, splits=2),
        _wgmma((35, 36, 40), F16, ("fortran", "fortran", OFFSET), sums="float32"),
        _wgmma((36, 72, 40), BF16, (PADDED, PADDED, PADDED), accumulate=True),
        *(
            _wgmma((37, 19, 200), THREE, ("C", "fortran", "C"), data=data, splits=splits)
            for data in (huge, not_finite)
            for splits in (1, 2)
        ),
        _wgmma((140, 35, 100), TWO, ("fortran", "C", "C"), tile=128, data=far_rows),
        _wgmma((37, 19, 100), TWO, ("fortran", "C", "C"), data=not_finite),
    ],
}
