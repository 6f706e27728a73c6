"""What the blocks of a cluster share and what each has for itself, used as it should be."""

from typing import Any

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, uninitialised
from tests.emulator.subjects.cases import FOLDER

RUNS: list[dict[str, Any]] = [
    {"policy": "ascending"},
    {"policy": "descending"},
    {"policy": "random", "seed": 1},
    {"policy": "random", "seed": 2, "workers": 2},
]
KERNEL = '\nextern "C" __global__ void {attributes} f(int* y) {{ y[blockIdx.x] = {value}; }}\n'


@pytest.fixture(scope="module", params=["check", "fast"])
def module(request: pytest.FixtureRequest) -> Module:
    return Module(FOLDER / "cluster_protocols.cu", mode=request.param)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_ranks(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised((2, 6, 4), np.int32)
    module.get_function("places")((4, 6, 2), (33,), (y,), **options)
    np.testing.assert_array_equal(y, np.tile([[0, 1], [2, 3], [4, 5]], (2, 2, 2)))


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_a_block_alone_is_a_cluster(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised(5, np.int32)
    module.get_function("places_without_clusters")((5,), (1,), (y,), **options)
    assert not y.any()


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_each_block_has_its_shared_memory(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised((8, 40), np.int32)
    kernel = module.get_function("own_shared_memory")
    kernel((8,), (40,), (y,), shared_mem=160, **options)
    t, block = np.arange(40), np.arange(8)[:, None] * 100
    expected = block + (t + 1) % 40 + block + t + (block + t // 32 * 32) * 40
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_the_largest_cluster(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised((16, 1024), np.int32)
    module.get_function("largest_cluster")((2, 2, 4), (1024,), (y,), **options)
    np.testing.assert_array_equal(y, np.arange(16)[:, None] + np.arange(1024)[::-1])


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_a_cluster_shares_global_memory(module: Module, options: dict[str, Any]) -> None:
    y, sums = uninitialised((8, 32), np.int32), uninitialised(2, np.int32)
    module.get_function("through_global_memory")((8,), (32,), (y, sums), **options)
    even = np.arange(0, 32, 2)
    expected = [sum((even + b).sum() for b in blocks) for blocks in ((0, 1, 2), (4, 5, 6))]
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_a_cluster_passes_on_what_it_knows(module: Module, options: dict[str, Any]) -> None:
    for name in ("through_a_third", "after_an_exit"):
        y = uninitialised(1, np.int32)
        module.get_function(name)((3,), (64,), (y,), **options)
        assert y == 2


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_each_block_has_its_barriers_and_registers(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised((4, 256), np.int32)
    module.get_function("own_barriers")((4,), (256,), (y,), **options)
    np.testing.assert_array_equal(y, np.tile(np.arange(256)[::-1], (4, 1)))


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_arrivals_in_other_blocks_order_memory(module: Module, options: dict[str, Any]) -> None:
    y = uninitialised(2, np.int32)
    module.get_function("pass_round")((16,), (32,), (y,), **options)
    np.testing.assert_array_equal(y, [28, 28])


def test_clusters_are_not_ordered() -> None:
    text = """
extern "C" __global__ void __cluster_dims__(2) f(int* y) {
  if (ptx::cluster_rank() == 0) *y = 1;
  ptx::cluster_sync();
  if (ptx::cluster_rank() == 1) *y = 2;
}
"""
    kernel = Module(text).get_function("f")
    y = uninitialised(1, np.int32)
    kernel((2,), (1,), (y,))
    assert y == 2
    with pytest.raises(EmulatorError, match=r"race: .* by thread \(0,0,0\) of block \(1,0,0\)"):
        kernel((4,), (1,), (y,))


def test_a_launch_after_a_failed_one() -> None:
    text = """
__shared__ int item;
extern "C" __global__ void __cluster_dims__(2) f(int* y, int wait) {
  item = blockIdx.x;
  if (blockIdx.x < wait) return;
  ptx::cluster_sync();
  if (wait) __trap();
  y[blockIdx.x] = item;
}
"""
    kernel = Module(text).get_function("f")
    for _ in range(3):
        y = uninitialised(2, np.int32)
        with pytest.raises(EmulatorError, match=r"__trap.*block \(1, 0, 0\)"):
            kernel((2,), (1,), (y, np.int32(1)))
        kernel((2,), (1,), (y, np.int32(0)))
        np.testing.assert_array_equal(y, [0, 1])


@pytest.mark.parametrize(
    "attributes",
    [
        "__cluster_dims__(2 * HALF, 1, 1)",
        "__launch_bounds__(SIZE(32), 1) __cluster_dims__(SIZE(2) + 2)",
        "__cluster_dims__(4) __launch_bounds__(32)",
    ],
)
def test_attribute(attributes: str) -> None:
    text = "#define SIZE(x) (x)\nconstexpr int HALF = 2;" + KERNEL
    module = Module(text.format(attributes=attributes, value="ptx::cluster_rank()"))
    kernel = module.get_function("f")
    y = uninitialised(8, np.int32)
    kernel((8,), (1,), (y,))
    np.testing.assert_array_equal(y, [*range(4), *range(4)])
    with pytest.raises(EmulatorError, match=r"grid is \(6,\), not whole clusters of \(4, 1, 1\)"):
        kernel((6,), (1,), (y,))


@pytest.mark.parametrize(
    ("extents", "arch", "message"),
    [
        ("3, 3", 900, r"a cluster has \(3, 3, 1\) blocks, more than 8 or none"),
        ("0", 900, r"a cluster has \(0, 1, 1\) blocks, more than 8 or none"),
        ("2", 800, "sm_80 has no clusters"),
    ],
)
def test_no_such_clusters(extents: str, arch: int, message: str) -> None:
    text = KERNEL.format(attributes=f"__cluster_dims__({extents})", value=0)
    kernel = Module(text, mode="fast", arch=arch).get_function("f")
    with pytest.raises(EmulatorError, match=message):
        kernel((9, 9), (1,), (uninitialised(9, np.int32),))
