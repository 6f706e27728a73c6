"""Operands as planes, made on any device and compared with what they must be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from gpugrad.gpu import planes
from gpugrad.gpu.arguments import defines, elementwise, flags, packed, strides
from gpugrad.gpu.bind import Runtime
from gpugrad.gpu.launches import ArrayRef, Launches, ref_of
from gpugrad.gpu.planes import Planes
from gpugrad.gpu.split_sums import launch_column_sum
from gpugrad.planning.choice import column_sum
from tests.conftest import Backend, EmulatedBackend
from tests.support.cases import random_array
from tests.support.operations import same_bits

COUNTS = (3, 2, 1)
STEP = {3: 0, 2: 11, 1: 11}
SHIFT = {3: 16, 2: 0, 1: 0}
DTYPE = {3: np.dtype(ml_dtypes.bfloat16), 2: np.dtype(np.float16), 1: np.dtype(np.float16)}
LARGEST_OF_ONE = np.float32((2 - 2.0**-10) * 2.0**127)  # of one plane
SPLIT_BELOW = 2.0**111  # with three planes; of others, the planes are the bits


@dataclass(frozen=True)
class Device:
    """A runtime, how a test gives it arrays and looks at them, and how products are computed."""

    runtime: Runtime
    backend: Backend = field(default_factory=EmulatedBackend)
    algorithm: str = "mma"

    def array(self, array: np.ndarray) -> Any:
        return self.backend.array(array)

    def program(self) -> "TestProgram":
        """Begin a program of the test's own."""
        return TestProgram(self.runtime)

    def numpy(self, array: Any) -> np.ndarray:
        return np.asarray(self.backend.numpy(array))


class TestProgram:
    """A program in the making, of parts of operations, and the arrays that it runs on."""

    __test__ = False

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.launches = Launches(runtime.facts(None).sm_count)
        self._arrays: list[Any] = []

    def ref(self, array: Any) -> ArrayRef:
        """Have the program take an array of the device."""
        self._arrays.append(array)
        return ref_of(len(self._arrays) - 1, array)

    def result(self, ref: ArrayRef) -> Any:
        """Return an array of the device that will have the values of a part of the workspace."""
        array = self.runtime.empty(ref.shape, ref.dtype)
        self.launches.copy(ref, self.ref(array))
        return array

    def run(self) -> None:
        """Run what has been added."""
        self.runtime.bind(self.launches.program(), len(self._arrays))(self._arrays)


# ---- data


def any_bits(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """float32 numbers of every kind: zeros, subnormals, the largest, infinities and NaNs too."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, shape, np.uint32)
    matrix = bits.view(np.float32)
    corners = np.array(
        [0.0, -0.0, 2**-149, -(2**-149), 2**-126, 2.0**111, 2.0**127, np.inf, -np.inf, np.nan],
        np.float32,
    )
    corners = np.concatenate([corners, np.nextafter(corners[2:7], np.float32(0))])
    largest = np.finfo(np.float32).max
    corners = np.concatenate([corners, np.float32([largest, -largest])])
    matrix.flat[: corners.size] = corners
    return matrix


def exponents_apart(shape: tuple[int, int]) -> np.ndarray:
    """Numbers whose magnitudes go from 2^-40 to 2^40: a few planes hold less of the smaller."""
    random = np.random.default_rng(2)
    return np.ldexp(random.uniform(-1, 1, shape), random.integers(-40, 41, shape)).astype("f4")


def largest_anywhere(shape: tuple[int, int]) -> np.ndarray:
    """Every row and column has its largest magnitude, far above the others, at its own place."""
    matrix = random_array(shape, "float32", 1)
    for i in range(max(shape)):
        matrix[i * 61 % shape[0], i * 131 % shape[1]] = 2.0 ** (20 + i % 100)
    return matrix


# ---- what must come out


def exponents_of(matrix: np.ndarray, axis: int) -> np.ndarray:
    """13 − ⌊log₂ max |x|⌋ over the finite elements along an axis, 0 where there are none but 0."""
    finite = np.where(np.isfinite(matrix), np.abs(matrix.astype(np.float64)), 0)
    largest = finite.max(axis, initial=0)
    return np.where(largest > 0, 14 - np.frexp(largest)[1], 0).astype(np.int32)


def planes_of(matrix: np.ndarray, count: int, exponents: np.ndarray | None) -> np.ndarray:
    """Split in NumPy: bits (count, rows, columns). exponents broadcasts against the matrix."""
    kept = matrix
    if count == 1:  # what would be rounded to 2^128
        clipped = np.clip(matrix, -LARGEST_OF_ONE, LARGEST_OF_ONE)
        kept = np.where(np.isfinite(matrix), clipped, matrix)
    value = kept if exponents is None else np.ldexp(kept, exponents)
    rest = value * np.float32(2 ** SHIFT[count])
    found = []
    for _ in range(count):
        plane = rest.astype(DTYPE[count])
        left = (rest - plane.astype(np.float32)) * np.float32(2 ** STEP[count])
        rest = np.where(np.isfinite(rest), left, np.float32(0))
        found.append(plane.view(np.uint16))
    if count < 3:  # what is too small for them is the smallest number in the last
        gone = (matrix != 0) & ~np.any([plane & 0x7FFF for plane in found], axis=0)
        found[-1][gone] = np.where(matrix < 0, 0x8001, 0x0001)[gone]
    if count == 3:
        whole = ~(np.abs(matrix) < SPLIT_BELOW)
        bits = matrix.view(np.uint32)
        for plane, word in zip(found, (0x7F80, bits >> 16, bits & 0xFFFF), strict=True):
            plane[whole] = np.broadcast_to(word, matrix.shape)[whole]
    return np.stack(found)


def joined(bits: np.ndarray, exponents: np.ndarray | None) -> np.ndarray:
    """The sum of planes, in float64, where none of it is rounded."""
    count = len(bits)
    value = sum(
        plane.view(DTYPE[count]).astype(np.float64) * 2.0 ** (-STEP[count] * p - SHIFT[count])
        for p, plane in enumerate(bits)
    )
    return np.asarray(np.ldexp(value, 0 if exponents is None else -exponents))


def bound(matrix: np.ndarray, count: int, exponents: np.ndarray) -> np.ndarray:
    """How far planes with exponents may be from the value.

    Of a magnitude in [2^e, 2^(e+1)) that its exponent has been applied to, rounding to float16
    leaves 2^(e-11), or 2^-25 where that is subnormal. What it leaves is at most 2^(e-11), times
    2^11 again a power of two or a number below 2^e, of which the second plane leaves 2^(e-12), or
    2^-25, 2^-11 times. What is too small for them is brought up to 2^-24 in the last. One plane
    leaves twice as much of what it would round to 2^128.
    """
    magnitude = np.abs(np.ldexp(matrix.astype(np.float64), exponents))
    e = np.frexp(magnitude)[1] - 1
    unit, least = (-11, -24) if count == 1 else (-23, -35)
    e += (count == 1) & (np.abs(matrix) > LARGEST_OF_ONE)
    return np.asarray(np.ldexp(np.maximum(np.ldexp(1.0, e + unit), 2.0**least), -exponents))


# ---- comparing

Brought = tuple[Planes, Any, Any]  # and the values of the planes and of their exponents


def brought(program: TestProgram, found: Planes | None) -> Brought | None:
    """Have a program bring out what planes hold."""
    if found is None:
        return None
    exponents = None if found.exponents is None else program.result(found.exponents)
    return found, program.result(found.array), exponents


@np.errstate(all="ignore")  # of infinities and NaNs
def expect_planes(
    device: Device, brought: Brought, matrix: np.ndarray, count: int, outer: str
) -> None:
    """Assert that planes are those of a float32 matrix, bit by bit, and keep what they promise."""
    rows, columns = matrix.shape
    found, array, found_exponents = brought
    assert (found.count, found.rows, found.columns) == (count, rows, columns)
    assert found.pitch % 8 == 0
    assert found.pitch >= columns
    assert found.plane_stride == rows * found.pitch
    exponents = None
    if count < 3:
        expected = exponents_of(matrix, 1 if outer == "rows" else 0)
        np.testing.assert_array_equal(device.numpy(found_exponents), expected, "exponents")
        exponents = expected[:, None] if outer == "rows" else expected
    else:
        assert found.exponents is None
    bits = device.numpy(array).view(np.uint16)
    expected = planes_of(matrix, count, exponents)
    wrong = bits != expected
    if count < 3:  # any NaN is one
        nan = np.isnan(bits.view(np.float16)) & np.isnan(expected.view(np.float16))
        wrong &= ~nan
    assert not wrong.any(), f"planes {sorted(set(np.nonzero(wrong)[0].tolist()))} are wrong"

    if count == 3:
        split = np.abs(matrix) < SPLIT_BELOW
        np.testing.assert_array_equal(joined(bits, None)[split], matrix[split])
        return
    assert exponents is not None
    finite = np.isfinite(matrix)
    error = np.abs(joined(bits, exponents) - matrix)
    within = error <= bound(np.where(finite, matrix, 0), count, exponents)
    assert (within | ~finite).all(), "an error is beyond its bound"
    np.testing.assert_array_equal(bits[0].view(np.float16)[~finite], matrix[~finite])
    assert not bits[1:, ~finite].any(), "planes beside an infinity or NaN are not 0"


def expect_split(
    device: Device, matrix: np.ndarray, count: int, outers: Sequence[str] = ("rows", "columns")
) -> None:
    """Split a matrix on the device, and compare."""
    program = device.program()
    both = planes.split_both(
        program.launches,
        program.ref(device.array(matrix)),
        count,
        by_row="rows" in outers,
        by_column="columns" in outers,
    )
    found = [brought(program, one) for one in both]
    program.run()
    for outer, one in zip(("rows", "columns"), found, strict=True):
        assert (one is not None) == (outer in outers)
        if one is not None:
            expect_planes(device, one, np.ascontiguousarray(matrix), count, outer)


def expect_split_gradient(
    device: Device,
    dy: np.ndarray,
    saved: np.ndarray,
    count: int,
    *,
    logits: bool = False,
    outers: Sequence[str] = ("rows", "columns"),
    db: np.ndarray | None = None,
    accumulate_db: bool = False,
) -> None:
    """Split dz on the device; compare with the dz and db of the kernels that store them."""
    program = device.program()
    launches = program.launches
    of_dy, of_saved = program.ref(device.array(dy)), program.ref(device.array(saved))
    shape = (rows, columns) = dy.shape
    step = column_sum(rows, columns, "float32")
    macros = defines(dy.dtype, logits=logits)
    dz = device.runtime.empty(shape, np.dtype(np.float32))
    elementwise(launches, "sigmoid_backward", macros, of_dy, of_saved, program.ref(dz))
    sums = expected = of_sums = None
    if db is not None:
        sums, expected = device.array(db), device.array(db.copy())
        of_sums = program.ref(sums)
        launch_column_sum(
            launches,
            step,
            "sigmoid_bias_backward",
            "sigmoid_bias_sum",
            macros,
            (of_dy, *strides(of_dy), of_saved, *strides(of_saved)),
            shape,
            program.ref(expected),
            flags(packed(of_dy, of_saved), accumulate_db),
        )
    both = planes.split_gradient(
        launches,
        step,
        of_dy,
        of_saved,
        logits,
        count,
        by_row="rows" in outers,
        by_column="columns" in outers,
        db=of_sums,
        accumulate_db=accumulate_db,
    )
    if count == 3 and len(outers) == 2:
        assert both[0] is both[1]
    found = [brought(program, one) for one in both]
    program.run()
    for outer, one in zip(("rows", "columns"), found, strict=True):
        assert (one is not None) == (outer in outers)
        if one is not None:
            expect_planes(device, one, device.numpy(dz), count, outer)
    if db is not None:
        assert same_bits(device.numpy(sums), device.numpy(expected)), "db is not sigmoid_bias_sum's"
