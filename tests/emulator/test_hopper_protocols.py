"""Registers, named barriers and products in flight where they are used as they should be."""

from typing import Any

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, uninitialised
from tests.emulator.subjects.cases import FOLDER

RUNS: list[dict[str, Any]] = [
    {"policy": "ascending"},
    {"policy": "descending"},
    {"policy": "random", "seed": 1},
    {"policy": "random", "seed": 2, "eager_copies": True},
]


@pytest.fixture(scope="module", params=["check", "fast"])
def module(request: pytest.FixtureRequest) -> Module:
    return Module(FOLDER / "hopper_protocols.cu", mode=request.param)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_registers_wait_for_those_that_give_some_back(
    module: Module, options: dict[str, Any]
) -> None:
    y = uninitialised(384, np.int32)
    module.get_function("share_registers_out")((1,), (384,), (y,), **options)
    np.testing.assert_array_equal(y, np.repeat([10, 11, 12], 128))


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_registers_at_start_unknown(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised(256, np.int32)
    module.get_function("registers_at_start_unknown")((1,), (256,), (y,), **options)
    assert (y == 1).all()


def test_launch_bounds(module: Module) -> None:
    kernel = module.get_function("share_registers_out")
    with pytest.raises(EmulatorError, match=r"block is \(512,\), more than 384 threads"):
        kernel((1,), (512,), (uninitialised(512, np.int32),))


@pytest.mark.parametrize(
    ("bounds", "registers"),
    [
        ("THREADS, 1", 168),
        ("(THREADS), BLOCKS + 1", 80),
        ("128, 1", 248),
        ("128, 2", 248),
        ("256, 1", 248),
        ("1024, 1", 64),
    ],
)
def test_registers_at_start(bounds: str, registers: int) -> None:
    source = f"""
#define BLOCKS 1
constexpr int THREADS = 384;
extern "C" __global__ void __launch_bounds__({bounds}) up() {{ ptx::setmaxnreg_inc<24>(); }}
"""
    kernel = Module(source, mode="fast").get_function("up")
    with pytest.raises(EmulatorError, match=f"inc to 24 registers, the warpgroup has {registers},"):
        kernel((1,), (128,), ())


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_named_barriers(module: Module, options: dict[str, Any]) -> None:
    turns = 5
    y = uninitialised((turns, 64), np.int32)
    module.get_function("pass_on")((1,), (128,), (y, np.int32(turns)), **options)
    np.testing.assert_array_equal(y, np.arange(turns)[:, None] + np.arange(64)[::-1])


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_products_in_flight(module: Module, options: dict[str, Any]) -> None:
    turns = 3
    y = uninitialised(128)
    module.get_function("alternate")((1,), (128,), (y, np.int32(turns)), **options)
    assert set(y) == {turns * 3 * 16 * 32}


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_results_that_are_read_too_early(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised((2, 128))
    module.get_function("read_too_early")((1,), (128,), (y,), **options)
    assert np.isnan(y[0]).all()
    assert set(y[1]) == {16}
