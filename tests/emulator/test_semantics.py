"""Built-in variables, collectives, atomics and conversions mean what they mean on a GPU."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, uninitialised
from tests.emulator.launch import Function
from tests.emulator.subjects.cases import FOLDER, normal

Get = Callable[[str], Function]


@pytest.fixture(params=["fast", "check"])
def get(request: pytest.FixtureRequest) -> Get:
    return Module(FOLDER / "semantics.cu", mode=request.param).get_function


def order(kernel: Function, grid: int, block: int, **options: Any) -> list[int]:
    result = uninitialised(70, np.int32)
    kernel((grid,), (block,), (np.zeros(1, np.int32), result), **options)
    assert sorted(result) == list(range(70))
    return [int(thread) for thread in result]


@pytest.mark.parametrize(
    ("name", "shape"), [("order_of_threads", (1, 70)), ("order_of_blocks", (70, 1))]
)
def test_schedules(get: Get, name: str, shape: tuple[int, int]) -> None:
    kernel = get(name)
    assert order(kernel, *shape) == list(range(70))
    assert order(kernel, *shape, policy="descending") == list(range(69, -1, -1))
    first = order(kernel, *shape, policy="random", seed=1)
    assert first not in (list(range(70)), list(range(69, -1, -1)))
    assert first == order(kernel, *shape, policy="random", seed=1)
    assert first != order(kernel, *shape, policy="random", seed=2)


def test_indices(get: Get) -> None:
    out = uninitialised((2 * 3 * 4, 5 * 6 * 7), np.int32)
    get("indices")((2, 3, 4), (5, 6, 7), (out,))
    expected = np.arange(24)[:, None] * 10000 + np.arange(210)
    np.testing.assert_array_equal(out, expected)


def test_shuffles_and_votes(get: Get) -> None:
    x, y = np.arange(32, dtype=np.int32) ** 2, np.full(256, -1, np.int32)
    get("shuffles")((1,), (32,), (x, y))
    t = np.arange(32)
    rows = y.reshape(8, 32)
    np.testing.assert_array_equal(rows[0], x[(t + 1) % 32])
    np.testing.assert_array_equal(rows[1], x[t // 8 * 8 + 3])
    np.testing.assert_array_equal(rows[2], x[t ^ 5])
    np.testing.assert_array_equal(rows[3], x[np.where(t >= 2, t - 2, t)])
    np.testing.assert_array_equal(rows[4], x[np.where(t % 16 < 13, t + 3, t)])
    assert set(rows[5].view(np.uint32)) == {0xAAAAAAAA}
    assert set(rows[6]) == {1}
    np.testing.assert_array_equal(rows[7], [*x[7::-1], *[-1] * 24])


def test_one_thread_of_each_warp_is_elected(get: Get) -> None:
    y = uninitialised(72, np.int32)
    get("elections")((1,), (72,), (y,))
    expected = np.zeros(72)
    expected[[31, 63, 71]] = 3, 1, 1
    np.testing.assert_array_equal(y, expected)


def test_block_votes(get: Get) -> None:
    for values in (np.zeros(96), np.ones(96), np.arange(96) % 3 == 0):
        x, y = values.astype(np.int32), uninitialised(96, np.int32)
        get("block_votes")((1,), (96,), (x, y))
        assert set(y) == {int(x.sum()) * 4 + bool(x.any()) * 2 + bool(x.all())}


@pytest.mark.parametrize("workers", [1, 3])
def test_atomics(get: Get, workers: int) -> None:
    i = np.array([0, 0, 0, -1], np.int32)
    u, l64 = np.zeros(1, np.uint32), np.zeros(1, np.uint64)
    f, d = np.zeros(1, np.float32), np.zeros(1)
    get("atomics")((8,), (64,), (i, u, l64, f, d, np.int32(500)), workers=workers)
    assert i[:3].tolist() == [500 * 499 // 2, 499, -499]
    assert 0 <= i[3] < 500
    assert (u[0], l64[0], f[0], d[0]) == (500, 500 << 33, 250, 125)


def test_packs_of_16_bytes(get: Get) -> None:
    x, y = normal(400), uninitialised(400)
    get("packs")((2,), (64,), (x, y, np.int64(100)))
    np.testing.assert_array_equal(y, 2 * x)


def test_conversions_round_to_nearest_even(get: Get) -> None:
    special = [0.0, -0.0, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 6e-8, 1e-41, 65520, np.inf, -1e38]
    x = np.concatenate([np.array(special, np.float32), normal(54)])
    h, b = uninitialised(64, np.float16), uninitialised(64, ml_dtypes.bfloat16)
    back = uninitialised(64)
    get("conversions")((1,), (64,), (x, h, b, back))
    with np.errstate(over="ignore", invalid="ignore"):
        expected_h, expected_b = x.astype(np.float16), x.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(h.view(np.uint16), expected_h.view(np.uint16))
        np.testing.assert_array_equal(b.view(np.uint16), expected_b.view(np.uint16))
        np.testing.assert_array_equal(
            back, expected_h.astype(np.float32) + expected_b.astype(np.float32)
        )


def test_only_fma_fuses(get: Get) -> None:
    a, b, c = np.float32(1 + 2**-13), np.float32(1 - 2**-13), np.float32(-1)
    out = uninitialised(3)
    get("products_and_sums")((1,), (1,), (a, b, c, out))
    assert out.tolist() == [0.0, -(2.0**-26), 2.0]


def test_arguments_by_value(get: Get) -> None:
    pack = np.array([(1, 2, 3, 4)], "f4,f4,f4,f4")[0]
    out = uninitialised(6)
    scalars = (np.bool_(True), np.int8(-3), np.uint16(60000), np.int64(7 << 32), np.float64(2.5))
    get("by_value")((1,), (1,), (*scalars, pack, out))
    assert out.tolist() == [1, -3, 60000, 7, 2.5, 4]


def test_named_barriers(get: Get) -> None:
    for policy in ("ascending", "descending", "random"):
        out = uninitialised(128, np.int32)
        get("named_barriers")((1,), (128,), (out,), policy=policy)
        np.testing.assert_array_equal(out[:64], np.arange(63, -1, -1))
        np.testing.assert_array_equal(out[64:], 63)


def test_constants_null_pointers_and_architecture(get: Get) -> None:
    out = uninitialised(6, np.int32)
    get("constants")((1,), (6,), (out,))
    assert out.tolist() == [2, 3, 5, 7, 2, 3]
    get("null_pointer")((1,), (1,), (None, out[:1]))
    get("architecture")((1,), (1,), (out[1:2],))
    assert out[:2].tolist() == [1, 900]


def test_limits_of_dynamic_shared_memory() -> None:
    for arch, limit in ((750, 65536), (860, 101376), (900, 232448)):
        kernel = Module(FOLDER / "semantics.cu", arch=arch).get_function("dynamic_shared")
        out = uninitialised(1, np.int32)
        kernel((1,), (64,), (out, np.int32(1)), shared_mem=limit)
        with pytest.raises(EmulatorError, match=f"sm_{arch // 10} has {limit}"):
            kernel((1,), (64,), (out, np.int32(1)), shared_mem=limit + 1)


@pytest.mark.parametrize("n", [1, 1000, 232448 // 4])
def test_dynamic_shared_memory(get: Get, n: int) -> None:
    out = uninitialised(n, np.int32)
    get("dynamic_shared")((1,), (64,), (out, np.int32(n)), shared_mem=4 * n)
    np.testing.assert_array_equal(out, np.arange(n - 1, -1, -1))


def test_printf(get: Get, capfd: pytest.CaptureFixture[str]) -> None:
    get("prints")((2,), (32,), (np.int32(3),))
    assert capfd.readouterr().out == "n is 3\nn is 3\n"
