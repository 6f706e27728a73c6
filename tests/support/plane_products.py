"""Products on tensor cores from 16-bit planes, on any device: their errors, and their bits."""

import math

import numpy as np

from gpugrad.gpu import plane_products
from gpugrad.gpu.plane_operands import operand
from gpugrad.planning import configurations
from gpugrad.planning.problem import Gemm
from gpugrad.testing import reference
from gpugrad.testing.assertions import assert_result
from tests.accuracy.arithmetic import MACHINES, by_tensor_cores
from tests.support.planes import Device

KINDS = (  # dtype and planes
    *(("float32", planes) for planes in (3, 2, 1)),
    *((dtype, 1) for dtype in ("float16", "bfloat16")),
)


def tiles(algorithm: str, planes: int) -> tuple[int, ...]:
    """Return the tiles that there are, the smallest first."""
    return tuple(one.BLOCK_N for one in configurations.tiles(algorithm, "", planes))


def gemm(
    algorithm: str,
    rows: int,
    columns: int,
    contraction: int,
    tile: int,
    planes: int,
    splits: int = 1,
) -> Gemm:
    """Plan a product with a tile and as many splits as asked for, or fewer."""
    found = configurations.tiles(algorithm, "", planes)
    one = next(one for one in found if tile == one.BLOCK_N)
    length = max(1, math.ceil(contraction / splits / one.split_step)) * one.split_step
    splits = max(1, math.ceil(contraction / length))
    return Gemm(rows, columns, contraction, splits, length, one)


def expect_product(
    device: Device,
    left: np.ndarray,
    right: np.ndarray,
    tile: int,
    planes: int,
    *,
    splits: int = 1,
    out: np.ndarray | None = None,
    accumulate: bool = False,
) -> np.ndarray:
    """Compute left rightᵀ, both (outer, contraction), and assert that it is within its bound.

    Where the device's tensor cores round in a known way, its bits are asserted too.
    """
    (rows, contraction), columns = left.shape, len(right)
    out = np.full((rows, columns), np.nan, left.dtype) if out is None else out
    before = out.copy()
    answer = reference(
        "matmul_backward",
        dy=left,
        x=np.zeros((rows, columns), left.dtype),
        w=right,
        wrt=("x",),
        planes={"dx": planes},
        out={"dx": before} if accumulate else None,
        dtypes={"dx": out.dtype},
    )["dx"]
    plan = gemm(device.algorithm, rows, columns, contraction, tile, planes, splits)
    target, program = device.array(out), device.program()
    operands = (
        operand(program.launches, program.ref(device.array(one)), planes) for one in (left, right)
    )
    into = program.ref(target)
    plane_products.product(program.launches, plan, left.dtype, *operands, into, accumulate)
    program.run()
    result = np.ascontiguousarray(device.numpy(target))
    assert_result("matmul_backward", "dx", result, answer, out.dtype)
    machine = getattr(device.runtime, "arithmetic", "")
    if machine in MACHINES and left.size and right.size:
        split_length = plan.split_length if plan.splits > 1 else 0
        sums = by_tensor_cores(left, right, planes, machine, split_length, algorithm=plan.algorithm)
        expected = before.astype(np.float32) + sums if accumulate else sums
        with np.errstate(over="ignore"):
            expect_same_values(result, expected.astype(out.dtype))
    return result


def expect_forward(
    device: Device,
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    tile: int,
    planes: int,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compute σ(x w + b) and assert that it is within its bound."""
    (n, k), m = x.shape, w.shape[1]
    answer = reference("dense_sigmoid", x=x, w=w, b=b, planes={"y": planes})["y"]
    target = device.array(np.full((n, m), np.nan, x.dtype) if out is None else out)
    program = device.program()
    operands = [None if one is None else program.ref(device.array(one)) for one in (x, w, b)]
    plan = gemm(device.algorithm, n, m, k, tile, planes)
    plane_products.forward(program.launches, plan, *operands, program.ref(target))
    program.run()
    result = np.ascontiguousarray(device.numpy(target))
    assert_result("dense_sigmoid", "y", result, answer, x.dtype)
    return result


def expect_same_values(result: np.ndarray, expected: np.ndarray) -> None:
    """Assert equal bits, but for NaNs, of which any is one."""
    bits = np.dtype(f"u{result.itemsize}")
    nan = np.isnan(result) & np.isnan(expected)
    same = nan | (result.view(bits) == expected.view(bits))
    assert same.all(), f"{np.count_nonzero(~same)} elements of {same.size} have other bits"
