"""The arithmetic of the kernels' products in NumPy, bit by bit, for sums too long to be emulated.

A product is left rightᵀ of operands (outer, contraction). kernels/gemm_ffma.cuh adds in one chain
of multiply-adds, kernels/gemm_mma.cuh and gemm_wgmma.cuh on tensor cores, and so does, in an order
of its own, kernels/dense_sigmoid_backward_fused_mma.cu. Splits of the contraction are computed side
by side, a few of them at a time, so that they stay in a cache. Within this module the contraction
comes first, then planes, then splits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gpugrad.planning.configurations import MMA, REDUCTION, WGMMA
from tests.support.planes import SHIFT, STEP, exponents_of, planes_of

Array = np.ndarray[Any, Any]

MMA_TERMS = 16  # of one instruction
PROMOTED_AFTER = {  # terms, by planes
    "mma": {3: MMA_TERMS, 2: MMA_TERMS, 1: MMA[1][0].BLOCK_K},
    "wgmma": {3: WGMMA[3][0].BLOCK_K, 2: WGMMA[2][0].BLOCK_K, 1: WGMMA[1][0].PROMOTION_INTERVAL},
}
LANES = REDUCTION.THREADS_PER_SUM
TOGETHER = 8192  # sums that are computed side by side
NO_EXPONENT = -8192  # of a zero: it aligns nothing
MIN_EXPONENT = {"float32": -126, "bfloat16": -126, "float16": -14}
LOWEST_BIT = -149  # of a float32
FRACTION = 23  # bits of a float32 behind the point


class TensorCores(NamedTuple):
    """How tensor cores add: products at once, and bits that are kept behind a float32's last."""

    group: int
    extra_bits: int


MACHINES = {"hopper": TensorCores(16, 2), "ampere": TensorCores(8, 1)}
ALGORITHM = {"hopper": "wgmma", "ampere": "mma"}  # of products from planes
FUSED = "fused"  # of three planes


def by_multiply_adds(left: Array, right: Array, split_length: int = 0) -> Array:
    """Multiply in float32 by one chain of FFMAs for each part of split-K."""
    return _reduced([_chains(a, b) for a, b in _splits(left, right, split_length)])


@np.errstate(all="ignore")
def by_tensor_cores(
    left: Array,
    right: Array,
    planes: int,
    machine: str,
    split_length: int = 0,
    *,
    algorithm: str | None = None,
) -> Array:
    """Multiply from planes of float32 operands; 16-bit ones are their own only plane.

    Parameters
    ----------
    left, right : arrays of shape (outer, contraction)
    planes : {1, 2, 3}
    machine : {"hopper", "ampere"}
    split_length : int, optional
        Terms of each split of the contraction, a multiple of 16; without it there is one.
    algorithm : {"mma", "wgmma", "fused"}, optional
        The machine's own if it is not given.
    """
    algorithm = algorithm or ALGORITHM[machine]
    a, b = _Planes(left, planes), _Planes(right, planes)
    exponents = a.exponents[:, None] + b.exponents
    bits = _splits(a.bits, b.bits, split_length)
    values = _splits(a.value, b.value, split_length)
    parts = []
    for (a_bits, b_bits), (a_value, b_value) in zip(bits, values, strict=True):
        if algorithm == FUSED:
            sums = _recovered_sums(a_bits, b_bits, MACHINES[machine])
        else:
            promoted_after = PROMOTED_AFTER[algorithm][planes]
            sums = _promoted_sums(a_bits, b_bits, a.step, promoted_after, MACHINES[machine])
        part = np.ldexp(sums, -exponents).astype(np.float32)
        if not np.isfinite(sums).all():
            part = np.where(np.isfinite(sums), part, _chains(a_value, b_value))
        parts.append(part)
    return _reduced(parts)


# ---- splits


def _splits(left: Array, right: Array, length: int) -> Iterator[tuple[Array, Array]]:
    """Cut (..., outer, contraction) into (length, ..., splits, outer), a few splits at a time."""
    contraction = left.shape[-1]
    length = -(-(length or contraction) // MMA_TERMS) * MMA_TERMS
    count = -(-contraction // length)
    step = max(1, TOGETHER // (left.shape[-2] * right.shape[-2]))
    for first in range(0, count, step):
        last = min(first + step, count)
        pair = []
        for operand in (left, right):
            part = operand[..., first * length : last * length]
            whole = np.zeros((*part.shape[:-1], (last - first) * length), part.dtype)
            whole[..., : part.shape[-1]] = part
            cut = whole.reshape(*part.shape[:-1], last - first, length)
            pair.append(np.ascontiguousarray(np.moveaxis(cut, (-1, -2), (0, -2))))
        yield pair[0], pair[1]


def _reduced(parts: list[Array]) -> Array:
    """Add the splits (splits, rows, columns) as kernels/reduce_splits.cu does."""
    partial = np.concatenate(parts)
    if len(partial) == 1:
        return np.asarray(partial[0])
    lanes = np.zeros((LANES, *partial.shape[1:]), np.float32)
    for index, one in enumerate(partial):
        lanes[index % LANES] += one
    total = lanes[0]
    for lane in lanes[1:]:
        total = total + lane
    return np.asarray(total)


# ---- FFMA


@np.errstate(all="ignore")
def _chains(left: Array, right: Array) -> Array:
    """Multiply (length, splits, outer) by chains of FFMAs: (splits, rows, columns)."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    total = np.zeros((*left.shape[1:], right.shape[2]))
    for q in range(len(a)):
        total = _fused(_outer(np.multiply, a[q], b[q]), total)
    return total.astype(np.float32)


def _outer(ufunc: np.ufunc, left: Array, right: Array, out: Array | None = None) -> Array:
    """Combine (splits, rows) and (splits, columns)."""
    return np.asarray(ufunc(left[:, :, None], right[:, None, :], out=out))


def _fused(product: Array, total: Array) -> Array:
    """Add an unrounded product to a float32 and round once to a float32.

    A sum that is rounded to float64 first may become a tie of two float32s, which it was not. All
    ties end in 28 zeros; there the lost part decides.
    """
    whole = product + total
    bits = whole.view(np.int64)
    if not (bits & 0xFFFFFFF).all():
        part = whole - total
        lost = (total - (whole - part)) + (product - part)
        even = (lost != 0) & (bits & 1 == 0) & np.isfinite(lost)
        bits += np.where(even, np.where((lost > 0) == (whole > 0), 1, -1), 0)
    return _to_float32(whole)


def _to_float32(numbers: Array) -> Array:
    """Round; the sum of two float32s in float64 is not rounded twice."""
    return numbers.astype(np.float32).astype(np.float64)


# ---- tensor cores


class _Planes:
    """An operand as planes.

    bits: (planes, outer, contraction), numbers of a 16-bit format; value: (outer, contraction), the
    float32 that the planes hold; exponents: (outer,), SHIFT included.
    """

    def __init__(self, operand: Array, planes: int) -> None:
        self.exponents = np.zeros(len(operand), np.int32)
        if operand.dtype.itemsize == 2:
            self.step, self.bits = 0, operand[None]
            self.value = operand.astype(np.float32)
            return
        self.step = STEP[planes]
        if planes == 3:
            self.bits = planes_of(operand, planes, None).view(ml_dtypes.bfloat16)
            self.value = operand
            self.exponents += SHIFT[planes]
            return
        self.exponents = exponents_of(operand, 1)
        self.bits = planes_of(operand, planes, self.exponents[:, None]).view(np.float16)
        joined = sum(
            np.ldexp(plane.astype(np.float64), -self.step * p) for p, plane in enumerate(self.bits)
        )
        self.value = np.ldexp(joined, -self.exponents[:, None]).astype(np.float32)


def _promoted_sums(
    left: Array, right: Array, step: int, promoted_after: int, machine: TensorCores
) -> Array:
    """Multiply planes (length, planes, splits, outer): (splits, rows, columns), in float64."""
    length, planes = left.shape[:2]
    sums = np.zeros((*left.shape[2:], right.shape[3]))
    part = zeros = np.zeros_like(sums)
    a, b = _Factors(left), _Factors(right)
    for start in range(0, length, promoted_after):
        steps = range(start, min(start + promoted_after, length), MMA_TERMS)
        for weight in reversed(range(planes)):
            for first in steps:
                for p in range(weight + 1):
                    part = _instruction(part, a, p, b, weight - p, first, machine)
            if weight > 0:
                part = np.ldexp(part, -step)
            if weight > 1:
                part = _to_float32(part)
            else:
                sums, part = _to_float32(sums + part), zeros
    return sums


def _recovered_sums(left: Array, right: Array, machine: TensorCores) -> Array:
    """The same of three planes, promoted every 16 terms with what truncation took of the first."""
    sums = np.zeros((*left.shape[2:], right.shape[3]))
    zeros = np.zeros_like(sums)
    a, b = _Factors(left), _Factors(right)
    for first in range(0, len(left), MMA_TERMS):
        whole = _instruction(zeros, a, 0, b, 0, first, machine)
        rest = _instruction(-whole, a, 0, b, 0, first, machine)
        for weight in (2, 1):
            for p in range(weight + 1):
                rest = _instruction(rest, a, p, b, weight - p, first, machine)
        sums = _to_float32(sums + _to_float32(whole + rest))
    return sums


class _Factors:
    """The values of planes (length, planes, splits, outer) in float64, and their exponents."""

    def __init__(self, planes: Array) -> None:
        self.value = planes.astype(np.float64)
        exponents = np.maximum(np.frexp(self.value)[1] - 1, MIN_EXPONENT[planes.dtype.name])
        self.exponent = np.where(self.value != 0, exponents, NO_EXPONENT).astype(np.int16)


def _instruction(
    total: Array, a: _Factors, p: int, b: _Factors, q: int, first: int, machine: TensorCores
) -> Array:
    """Add 16 products of planes p and q to (splits, rows, columns), as one instruction does."""
    exponent, product = np.empty(total.shape, np.int16), np.empty(total.shape)
    for start in range(first, first + MMA_TERMS, machine.group):
        terms = range(start, start + machine.group)
        largest = _exponents(total)
        for k in terms:
            _outer(np.add, a.exponent[k, p], b.exponent[k, q], exponent)
            np.maximum(largest, exponent, out=largest)
        unit = np.maximum(largest, -900) - (FRACTION + machine.extra_bits)
        scale = _power_of_two(-unit)
        total = np.trunc(total * scale)
        for k in terms:
            _outer(np.multiply, a.value[k, p], b.value[k, q], product)
            np.multiply(product, scale, out=product)
            np.trunc(product, out=product)
            np.add(total, product, out=total)
        total = _truncated(total * _power_of_two(unit))
    return total


def _power_of_two(exponent: Array) -> Array:
    return (exponent.astype(np.int64) + 1023 << 52).view(np.float64)


def _exponents(total: Array) -> Array:
    """Return the exponents of float32 numbers in float64."""
    found = (total.view(np.int64) >> 52 & 0x7FF).astype(np.int16) - np.int16(1023)
    found = np.maximum(found, np.int16(MIN_EXPONENT["float32"]))
    return np.where(total != 0, found, np.int16(NO_EXPONENT))


def _truncated(total: Array) -> Array:
    """Truncate to a float32, towards zero."""
    cut = (total.view(np.int64) & ~0x1FFFFFFF).view(np.float64)
    magnitude = np.abs(cut)
    if not magnitude.min() >= 2.0**-126:  # a NaN too
        unit = 2.0**LOWEST_BIT
        cut = np.where(magnitude < 2.0**-126, np.trunc(cut / unit) * unit, cut)
    if not magnitude.max() < 2.0**128:
        cut = np.where(magnitude >= 2.0**128, np.copysign(np.inf, cut), cut)
    return np.asarray(cut + 0.0)
