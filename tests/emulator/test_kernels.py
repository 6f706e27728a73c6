"""Correct kernels give correct results under every schedule, in both modes."""

from typing import Any

import numpy as np
import pytest

from tests.emulator import Module, uninitialised
from tests.emulator.subjects.cases import CASES, FOLDER, gemm_16_bit, int32, normal, product_error

RUNS: list[tuple[str, dict[str, Any]]] = [
    ("fast", {"policy": "ascending"}),
    ("fast", {"policy": "descending"}),
    ("fast", {"policy": "random", "seed": 1, "eager_copies": True}),
    ("check", {"policy": "ascending"}),
    ("check", {"policy": "descending", "eager_copies": True}),
    ("check", {"policy": "random", "seed": 7}),
    ("check", {"policy": "random", "seed": 8, "workers": 2}),
]


@pytest.mark.parametrize(("mode", "options"), RUNS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_results(case: str, mode: str, options: dict[str, Any]) -> None:
    file, functions, defines, run = CASES[case]
    run(Module(FOLDER / file, functions=functions, defines=defines, mode=mode), **options)


def test_float16_instantiation_of_the_same_file() -> None:
    gemm_16_bit(Module(FOLDER / "gemm_16_bit.cu", defines=("ELEMENT_F16",)), np.float16)


def test_large_product() -> None:
    kernel = Module(FOLDER / "sgemm.cu").get_function("sgemm")
    a, b, c = normal(256, 256), normal(256, 256), uninitialised((256, 256))
    kernel((4, 4), (256,), (a, b, c, *int32(256, 256, 256)))
    assert product_error(c, a, b) <= 1
