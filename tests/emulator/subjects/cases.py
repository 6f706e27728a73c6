"""The subject kernels on random data, each with the result that it must give."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.emulator import Module, TensorMap, uninitialised

FOLDER = Path(__file__).resolve().parent
TF32_MASK = np.uint32(0xFFFFE000)


def normal(*shape: int) -> np.ndarray:
    """Return reproducible normal float32 numbers."""
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def ceil_div(a: int, b: int) -> int:
    """Return the quotient rounded up."""
    return -(-a // b)


def tf32(x: np.ndarray) -> np.ndarray:
    """Return the value that a tensor core takes a float32 for."""
    return (x.view(np.uint32) & TF32_MASK).view(np.float32)


def int32(*values: int) -> list[np.int32]:
    """Return arguments for int parameters."""
    return [np.int32(value) for value in values]


def product_error(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the error of c = a b, relative to what the sums of float32 products may err."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    unit = 2.0**-24
    return float(np.max(np.abs(c - exact) / (scale * unit)) / (a.shape[1] + 2))


def sgemm(module: Module, **options: Any) -> None:
    """Shapes with and without whole tiles, aligned and unaligned rows."""
    kernel = module.get_function("sgemm")
    for m, n, k in ((100, 36, 52), (65, 67, 33), (64, 64, 32), (1, 1, 1)):
        a, b, c = normal(m, k), normal(k, n), uninitialised((m, n))
        grid = (ceil_div(n, 64), ceil_div(m, 64))
        kernel(grid, (256,), (a, b, c, *int32(m, n, k)), **options)
        assert product_error(c, a, b) <= 1


def row_sums(module: Module, **options: Any) -> None:
    """Rows longer than a block, and shorter."""
    kernel = module.get_function("row_sums")
    for rows, columns in ((5, 700), (1, 1)):
        x, y = normal(rows, columns), uninitialised(rows)
        kernel((rows,), (256,), (x, y, *int32(rows, columns)), **options)
        assert product_error(y[:, None], x, np.ones((columns, 1), np.float32)) <= 1


def column_sums(module: Module, **options: Any) -> None:
    """Atomics of several blocks on one result."""
    kernel = module.get_function("column_sums<float>")
    x, y = normal(257, 133), np.zeros(133, np.float32)
    kernel((5, 3), (32, 8), (x, y, *int32(257, 133)), **options)
    assert product_error(y[None], np.ones((1, 257), np.float32), x) <= 1


def gemm_tf32(
    module: Module, shared_mem: int = 2 * (128 * 20 + 16 * 72) * 4, **options: Any
) -> None:
    """Three products recover float32; edges in every direction."""
    kernel = module.get_function("gemm_tf32")
    for m, n, k in ((132, 68, 52), (4, 4, 4)):
        a, b, c = normal(m, k), normal(k, n), uninitialised((m, n))
        grid = (ceil_div(n, 64), ceil_div(m, 128))
        kernel(grid, (128,), (a, b, c, *int32(m, n, k)), shared_mem=shared_mem, **options)
        # 3 k roundings of partial sums, and 2 more for the low parts that are left out
        assert product_error(c, a, b) <= 3


def gemm_16_bit(module: Module, dtype: Any = ml_dtypes.bfloat16, **options: Any) -> None:
    """Products of 16-bit items are exact, sums are float32."""
    kernel = module.get_function("gemm_16_bit")
    m, n, k = 32, 48, 64
    a, b, c = normal(m, k).astype(dtype), normal(k, n).astype(dtype), uninitialised((m, n))
    kernel((n // 16, m // 16), (32,), (a, b, c, *int32(m, n, k)), **options)
    assert product_error(c, a.astype(np.float32), b.astype(np.float32)) <= 1


def gemm_wgmma(module: Module, **options: Any) -> list[np.ndarray]:
    """More steps than stages, several tiles a block, edges."""
    kernel = module.get_function("gemm_wgmma")
    results = []
    for m, n, k in ((128, 128, 160), (100, 72, 52)):
        a, b, c = normal(m, k), normal(n, k), uninitialised((m, n))
        maps = (TensorMap(a, (64, 32)), TensorMap(b, (64, 32)))
        shared_mem = 4 * 2 * 8192 + 64
        kernel((2,), (256,), (*maps, c, *int32(m, n, k)), shared_mem=shared_mem, **options)
        assert product_error(c, tf32(a), tf32(b).T) <= 1
        results.append(c)
    return results


def bfloat16_planes(x: np.ndarray) -> np.ndarray:
    """Three bfloat16 numbers for each float32, each the rest of those before; padded rows."""
    planes = np.full((3, x.shape[0], ceil_div(x.shape[1], 8) * 8), np.nan, ml_dtypes.bfloat16)
    rest = x.copy()
    for plane in planes[..., : x.shape[1]]:
        plane[...] = rest
        rest -= plane.astype(np.float32)
    view: np.ndarray = planes[..., : x.shape[1]]
    return view


def gemm_planes(module: Module, **options: Any) -> None:
    """More steps than stages, several tiles a block, edges, padding that must not be read."""
    kernel = module.get_function("gemm_planes")
    for m, n, k in ((128, 48, 128), (150, 20, 77)):
        a, b, c = normal(m, k), normal(n, k), uninitialised((m, n))
        maps = (
            TensorMap(bfloat16_planes(a), (3, 128, 32), 64),
            TensorMap(bfloat16_planes(b), (3, 24, 32), 64),
        )
        shared_mem = 2 * 3 * (128 + 24) * 64 + 32
        kernel((2,), (384,), (*maps, c, *int32(m, n, k)), shared_mem=shared_mem, **options)
        # 6 products for each of k
        assert product_error(c, a, b.T) <= 6


def sum_tiles(module: Module, cluster: int = 2, **options: Any) -> None:
    """More tiles than stages, one, and none; several clusters, which all take the same tiles."""
    kernel = module.get_function("sum_tiles")
    for tiles in (7, 1, 0):
        x = normal(tiles + 1, cluster * 8, 32)
        y = uninitialised((cluster * 3, 64))
        arguments = (TensorMap(x, (1, 8, 32), 0), y, np.int32(tiles))
        shared_mem = 2 * cluster * 8 * 32 * 4
        kernel((cluster * 3,), (96,), arguments, shared_mem=shared_mem, **options)
        weighted = x[:tiles] * (np.arange(cluster * 8) // 8 + 1.0)[:, None]
        sums = weighted.reshape(-1, 64).sum(axis=0)
        expected = sums * np.arange(1, cluster * 3 + 1)[:, None]
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3)


# file, functions, defines, run
CASES: dict[str, tuple[str, list[str], tuple[str, ...], Callable[..., Any]]] = {
    "sgemm": ("sgemm.cu", ["sgemm"], (), sgemm),
    "row_sums": ("sums.cu", ["row_sums", "column_sums<float>"], (), row_sums),
    "column_sums": ("sums.cu", ["row_sums", "column_sums<float>"], (), column_sums),
    "gemm_tf32": ("gemm_tf32.cu", ["gemm_tf32"], (), gemm_tf32),
    "gemm_16_bit": ("gemm_16_bit.cu", ["gemm_16_bit"], (), gemm_16_bit),
    "gemm_wgmma": ("gemm_wgmma.cu", ["gemm_wgmma"], (), gemm_wgmma),
    "sum_tiles": ("clusters.cu", ["sum_tiles"], ("CLUSTER=2",), sum_tiles),
    "sum_tiles of 4": (
        "clusters.cu",
        ["sum_tiles"],
        ("CLUSTER=4",),
        functools.partial(sum_tiles, cluster=4),
    ),
    "gemm_planes": ("gemm_planes.cu", ["gemm_planes"], (), gemm_planes),
}
