"""Products on FP64 tensor cores, called on any device and compared with exact ones."""

import math

import numpy as np

from gpugrad.gpu import dmma
from gpugrad.planning.configurations import DMMA
from gpugrad.planning.problem import Gemm
from gpugrad.testing import reference
from gpugrad.testing.assertions import assert_result
from tests.support.planes import Device

TILES = tuple(one.BLOCK_N for one in DMMA)


def gemm(rows: int, columns: int, contraction: int, tile: int, splits: int = 1) -> Gemm:
    """Plan a product with a tile and as many splits as asked for, or fewer."""
    one = next(one for one in DMMA if tile == one.BLOCK_N)
    length = max(1, math.ceil(contraction / splits / one.split_step)) * one.split_step
    splits = max(1, math.ceil(contraction / length))
    return Gemm(rows, columns, contraction, splits, length, one)


def expect_product(
    device: Device,
    left: np.ndarray,
    right: np.ndarray,
    tile: int,
    *,
    splits: int = 1,
    out: np.ndarray | None = None,
    accumulate: bool = False,
) -> np.ndarray:
    """Compute left rightᵀ, both (outer, contraction), and assert that it is within its bound."""
    (rows, contraction), columns = left.shape, len(right)
    out = np.full((rows, columns), np.nan) if out is None else out
    answer = reference(
        "matmul_backward",
        dy=left,
        x=np.zeros((rows, columns)),
        w=right,
        wrt=("x",),
        out={"dx": out.copy()} if accumulate else None,
    )["dx"]
    plan = gemm(rows, columns, contraction, tile, splits)
    target, program = device.array(out), device.program()
    operands = [program.ref(device.array(one)) for one in (left, right)]
    dmma.product(program.launches, plan, *operands, program.ref(target), accumulate)
    program.run()
    result = device.numpy(target)
    assert_result("matmul_backward", "dx", result, answer, out.dtype)
    return result


def expect_forward(
    device: Device,
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    tile: int,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compute σ(x w + b) and assert that it is within its bound."""
    (n, k), m = x.shape, w.shape[1]
    answer = reference("dense_sigmoid", x=x, w=w, b=b)["y"]
    target = device.array(np.full((n, m), np.nan) if out is None else out)
    program = device.program()
    operands = [None if one is None else program.ref(device.array(one)) for one in (x, w, b)]
    dmma.forward(program.launches, gemm(n, m, k, tile), *operands, program.ref(target))
    program.run()
    result = device.numpy(target)
    assert_result("dense_sigmoid", "y", result, answer, x.dtype)
    return result
