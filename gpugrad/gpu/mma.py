"""Products on tensor cores: kernels/matmul_backward_mma.cu and dense_sigmoid_mma.cu."""

from typing import Any, NamedTuple

from gpugrad.gpu.gemm import launch_gemm
from gpugrad.gpu.launch import NULL, Arguments, defines, integers, strides
from gpugrad.gpu.planes import Planes, own, split, split_both
from gpugrad.gpu.runtime import Runtime
from gpugrad.plan import LARGE_TILE
from gpugrad.problem import Gemm

WORD_BYTES = 2


class Operand(NamedTuple):
    """A matrix (outer, contraction) as planes.

    Attributes
    ----------
    planes : Planes
    along : bool
        Whether a row of the planes is an outer index, and not an index of the contraction.
    """

    planes: Planes
    along: bool

    @property
    def arguments(self) -> Arguments:
        """Pointer, strides of rows and planes, exponents: as the kernels take an operand."""
        planes = self.planes
        exponents = NULL if planes.exponents is None else planes.exponents
        return (planes.array, *integers(planes.pitch, planes.plane_stride), exponents)


def operand(runtime: Runtime, matrix: Any, count: int) -> Operand:
    """Bring a matrix (outer, contraction) into planes, in the order that it has in memory."""
    along = rows_are_contiguous(matrix)
    rows = matrix if along else matrix.T
    if matrix.dtype.itemsize == WORD_BYTES:
        return Operand(own(runtime, rows), along)
    return Operand(split(runtime, rows, count, "rows" if along else "columns"), along)


def of_both_products(
    runtime: Runtime, dy: Any, count: int, *, dx: bool, dw: bool
) -> tuple[Operand | None, Operand | None]:
    """Bring dy (n, m) into planes, as the left operand of dx and the right one of dw."""
    straight = rows_are_contiguous(dy)
    rows = dy if straight else dy.T
    if dy.dtype.itemsize == WORD_BYTES:
        planes = own(runtime, rows)
        found = (planes if dx else None, planes if dw else None)
    elif straight:
        found = split_both(runtime, rows, count, by_row=dx, by_column=dw)
    else:
        found = split_both(runtime, rows, count, by_row=dw, by_column=dx)[::-1]
    for_dx, for_dw = found
    return (
        None if for_dx is None else Operand(for_dx, straight),
        None if for_dw is None else Operand(for_dw, not straight),
    )


def product(
    runtime: Runtime,
    plan: Gemm,
    element: Any,
    left: Operand,
    right: Operand,
    out: Any,
    accumulate: bool,
) -> None:
    """Compute out = left rightᵀ; element is the dtype of the call's arrays."""
    launch_gemm(
        runtime,
        plan,
        element,
        "matmul_backward_mma",
        "matmul_backward_mma",
        (*defines(element, result=out.dtype), *_macros(element, left, right)),
        (*left.arguments, *right.arguments),
        out,
        accumulate,
        integers(plan.rows, plan.columns, plan.contraction, plan.split_length),
        shared_bytes=shared_bytes(plan.tile, plan.planes),
    )


def both_products(
    runtime: Runtime,
    steps: dict[str, Gemm],
    dz_of_dx: Operand | None,
    dz_of_dw: Operand | None,
    x: Any,
    w: Any,
    outputs: dict[str, Any],
    accumulate: tuple[str, ...],
) -> None:
    """Compute dx = dz wᵀ and dw = xᵀ dz, as far as dz is given."""
    if dz_of_dx is not None:
        right = operand(runtime, w, dz_of_dx.planes.count)
        product(runtime, steps["dx"], x.dtype, dz_of_dx, right, outputs["dx"], "dx" in accumulate)
    if dz_of_dw is not None:
        left = operand(runtime, x.T, dz_of_dw.planes.count)
        product(runtime, steps["dw"], x.dtype, left, dz_of_dw, outputs["dw"], "dw" in accumulate)


def forward(runtime: Runtime, plan: Gemm, x: Any, w: Any, b: Any, y: Any) -> None:
    """Compute y = σ(x w + b)."""
    left, right = operand(runtime, x, plan.planes), operand(runtime, w.T, plan.planes)
    bias = (NULL, *integers(0)) if b is None else (b, *strides(b))
    launch_gemm(
        runtime,
        plan,
        x.dtype,
        "dense_sigmoid_mma",
        "dense_sigmoid_mma",
        (*defines(x.dtype), *_macros(x.dtype, left, right)),
        (*left.arguments, *right.arguments, *bias),
        y,
        None,
        integers(plan.rows, plan.columns, plan.contraction),
        shared_bytes=shared_bytes(plan.tile, plan.planes),
    )


def stages(tile: int, planes: int) -> tuple[int, int]:
    """Give BLOCK_K and STAGES of kernels/gemm_mma.cuh."""
    step = 64 if planes == 1 else 16 if (planes, tile) == (3, LARGE_TILE) else 32
    return step, 4 if step == 16 else 3


def shared_bytes(tile: int, planes: int) -> int:
    """Give the bytes of shared memory that the stages of both operands take."""
    step, count = stages(tile, planes)
    return count * planes * 2 * tile * step * WORD_BYTES


def rows_are_contiguous(matrix: Any) -> bool:
    """Say whether neighbours in memory are in one row, as far as they are neighbours at all."""
    return bool(abs(matrix.strides[1]) <= abs(matrix.strides[0]))


def _macros(element: Any, left: Operand, right: Operand) -> tuple[str, ...]:
    split = element.itemsize > WORD_BYTES
    return (
        *((f"PLANES={left.planes.count}",) if split else ()),
        *(() if left.along else ("LEFT_ACROSS",)),
        *(() if right.along else ("RIGHT_ACROSS",)),
    )
